// The official client with tokens from a backend of yours: logs in, draws one picture, logs out.
// While an example of ../backends runs:
//   npm install && LOGIN_PASSWORD=demo node backend.mjs http://127.0.0.1:3000 "a large green heart on a yellow background"
import { writeFileSync } from "node:fs";
import { fal } from "@fal-ai/client";
import { selfHost } from "./self-host.mjs";
import { tokenProvider } from "./token-provider.mjs";

const [, , backend = "http://127.0.0.1:3000", prompt = "a large green heart on a yellow background"] = process.argv;
selfHost(process.env.RUNNER_URL ?? "ws://127.0.0.1:8002");

function fail(...words) {
  console.error("no picture:", ...words);
  process.exit(1);
}

/** fetch as a page of the backend's has it: relative addresses, and a cookie that is kept. */
let cookie = "";
async function visit(path, options) {
  const response = await fetch(new URL(path, backend), { ...options, headers: { ...options.headers, Cookie: cookie } });
  const set = response.headers.getSetCookie().map((line) => line.split(";")[0]);
  if (set.length > 0) cookie = set.join("; ");
  return response;
}

const login = await visit("/api/login", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ username: "ada", password: process.env.LOGIN_PASSWORD ?? "demo" }),
});
if (!login.ok) fail("login:", login.status, await login.text());

const connection = fal.realtime.connect("fal-ai/fast-lcm-diffusion", {
  connectionKey: "backend",
  // The client keeps a failed token to itself, so say it here.
  tokenProvider: (app) => tokenProvider(visit)(app).catch((error) => fail(error.message)),
  tokenExpirationSeconds: 120,
  onResult: async ({ images }) => {
    writeFileSync("picture.jpg", images[0].content);
    connection.close();
    const logout = await visit("/api/logout", { method: "POST" });
    console.log(`picture.jpg; logout: ${logout.status}`);
    process.exit(0); // the client's token refresh timer would keep Node alive
  },
  onError: (error) => fail(error.message, error.body ?? ""),
});
connection.send({ prompt });
