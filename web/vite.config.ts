import { defineConfig } from "vite";

/** One script and one style sheet under fixed names: the server revalidates them by ETag. */
export default defineConfig({
  base: "/static/",
  build: {
    outDir: "static",
    emptyOutDir: true,
    target: "es2022",
    // The page has one script: nothing is preloaded, and an inline helper would offend the security policy.
    modulePreload: false,
    rollupOptions: {
      input: { site: "src/site.ts" },
      output: { entryFileNames: "[name].js", assetFileNames: "[name][extname]" },
    },
  },
});
