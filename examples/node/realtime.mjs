// The official JavaScript client against your own host. While `make run` is up:
//   npm install && node realtime.mjs "a large green heart on a yellow background"
import { readFileSync, writeFileSync } from "node:fs";
import { fal } from "@fal-ai/client";
import { selfHost } from "./self-host.mjs";

const authsvc = process.env.AUTHSVC_URL ?? "http://127.0.0.1:8001";
const key = process.env.FAL_KEY ?? readFileSync(new URL("../../.run/api-key", import.meta.url), "utf8").trim();
const runner = process.env.RUNNER_URL ?? "ws://127.0.0.1:8002";
selfHost(runner);

function fail(...words) {
  console.error("no picture:", ...words);
  process.exit(1);
}

// In a web app this lives in your backend, behind your own login: the key never reaches a browser.
async function mint(app) {
  const response = await fetch(`${authsvc}/tokens/realtime`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Key ${key}` },
    body: JSON.stringify({ allowed_apps: [app], duration: 120 }),
  });
  if (!response.ok) throw new Error(`no token: ${response.status} ${await response.text()}`);
  return (await response.json()).token;
}

const connection = fal.realtime.connect("fal-ai/fast-lcm-diffusion", {
  connectionKey: "example",
  // The client keeps a failed token to itself, so say it here.
  tokenProvider: (app) => mint(app).catch((error) => fail(error.message, error.cause?.code ?? "")),
  tokenExpirationSeconds: 120,
  onResult: ({ images, seed, timings }) => {
    writeFileSync("picture.jpg", images[0].content);
    console.log(`picture.jpg  seed ${seed}  ${JSON.stringify(timings)}`);
    connection.close();
    process.exit(0); // the client's token refresh timer would keep Node alive
  },
  onError: (error) => fail(error.message, error.body ?? `(is a runner at ${runner}?)`),
});
connection.send({ prompt: process.argv[2] ?? "a large green heart on a yellow background" });
