// node driver.mjs SCENARIO '{"runner": "ws://…", "authsvc": "http://…", "key": "id:secret"}'
// Runs one scenario with the official client and prints what it saw as one JSON line.
import { createFalClient } from "@fal-ai/client";
import { decode } from "@msgpack/msgpack";
import { falProxy, redirected, selfHost, sockets, tokenProvider } from "./host.mjs";

const APP = "fal-ai/fast-lcm-diffusion";
const [, , scenario, argument] = process.argv;
const at = JSON.parse(argument);
selfHost(at.runner);
const fal = createFalClient();

/** A connection whose results and errors can be awaited one by one. */
function open(app, options = {}, client = fal) {
  const seen = { results: [], errors: [], waiting: [] };
  const wake = () => seen.waiting.splice(0).forEach((resolve) => resolve());
  const connection = client.realtime.connect(app, {
    connectionKey: crypto.randomUUID(),
    throttleInterval: 0,
    tokenProvider: tokenProvider(at.authsvc, at.key),
    tokenExpirationSeconds: 120,
    onResult: (result) => (seen.results.push(result), wake()),
    onError: (error) => (seen.errors.push(error), wake()),
    ...options,
  });
  seen.wake = wake;
  seen.until = async (condition) => {
    while (!condition(seen)) await new Promise((resolve) => seen.waiting.push(resolve));
  };
  return { connection, seen };
}

/** One prompt, and what came of it. */
async function ask({ connection, seen }, input = { prompt: "a red circle" }) {
  connection.send(input);
  await seen.until(() => seen.results.length + seen.errors.length > 0);
  return { results: seen.results.map(summary), errors: errors(seen), sent: sockets[0].sent };
}

/** What of a result the test looks at. */
const summary = (result) => ({
  ...result,
  images: result.images.map((image) => ({
    ...image,
    content: Buffer.from(image.content).toString("base64"),
  })),
});

const errors = (seen) => seen.errors.map(({ message, status, body }) => ({ message, status, body }));

const scenarios = {
  async result() {
    const provider = tokenProvider(at.authsvc, at.key);
    const { connection, seen } = open(APP, { tokenProvider: provider });
    connection.send({ prompt: "a red circle", seed: 7, request_id: "one", sync_mode: true });
    await seen.until(() => seen.results.length + seen.errors.length > 0);
    connection.close();
    const code = await sockets[0].closing;
    return { results: seen.results.map(summary), errors: errors(seen), code, asked: provider.calls };
  },

  async image_to_image() {
    const { connection, seen } = open(`${APP}/image-to-image`);
    connection.send({
      prompt: "a red circle", seed: 7, strength: 0.5, image_bytes: new Uint8Array(Buffer.from(at.image, "base64")),
    });
    await seen.until(() => seen.results.length + seen.errors.length > 0);
    return { results: seen.results.map(summary), errors: errors(seen) };
  },

  async reconnect_after_idle() {
    const provider = tokenProvider(at.authsvc, at.key);
    const { connection, seen } = open(APP, { tokenProvider: provider });
    connection.send({ prompt: "a red circle", request_id: "before" });
    await seen.until(() => seen.results.length + seen.errors.length === 1);
    const code = await sockets[0].closing; // the runner's idle timeout
    connection.send({ prompt: "a red circle", request_id: "after" });
    await seen.until(() => seen.results.length + seen.errors.length === 2);
    return { ids: seen.results.map((result) => result.request_id), errors: errors(seen), code,
             sockets: sockets.length, tokens: provider.calls.length };
  },

  async refused() {
    const provider = at.token === undefined ? tokenProvider(at.authsvc, at.key, at.apps) : async () => at.token;
    const { connection, seen } = open(APP, { tokenProvider: provider });
    connection.send({ prompt: "a red circle" });
    await seen.until(() => seen.errors.length >= 2); // the message, then the close
    return { results: seen.results.length, errors: errors(seen), code: await sockets[0].closing };
  },

  async field_error_then_result() {
    const { connection, seen } = open(APP);
    connection.send({ prompt: "a red circle", num_inference_steps: 0, request_id: "bad" });
    await seen.until(() => seen.results.length + seen.errors.length === 1);
    connection.send({ prompt: "a red circle", request_id: "good" });
    await seen.until(() => seen.results.length === 1 || seen.errors.length === 2);
    return { ids: seen.results.map((result) => result.request_id), errors: errors(seen), sockets: sockets.length };
  },

  async limits() {
    const { connection, seen } = open(APP, { tokenProvider: async () => at.token });
    for (const input of at.inputs) {
      const before = seen.results.length + seen.errors.length;
      connection.send({ prompt: "a red circle", ...input });
      await seen.until(() => seen.results.length + seen.errors.length > before);
    }
    if (at.closes) await seen.until(() => seen.errors.length > 0 && sockets[0].readyState >= 2);
    return { ids: seen.results.map((result) => result.request_id), errors: errors(seen),
             code: at.closes ? await sockets[0].closing : null };
  },

  async newest_wins() {
    const { connection, seen } = open(APP, { maxBuffering: 2 });
    connection.send({ prompt: "warm up", request_id: "first" });
    await seen.until(() => seen.results.length === 1);
    for (let n = 1; n <= at.count; n += 1) connection.send({ prompt: `picture ${n}`, seed: n, request_id: `${n}` });
    await seen.until(() => seen.results.some((result) => result.request_id === `${at.count}`));
    return {
      ids: seen.results.slice(1).map((result) => result.request_id),
      dropped: seen.results.slice(1).reduce((sum, result) => sum + result.dropped_inputs, 0),
      errors: errors(seen),
    };
  },

  async refreshes_while_open() {
    const provider = tokenProvider(at.authsvc, at.key);
    const { connection, seen } = open(APP, {
      tokenProvider: (app) => provider(app).finally(() => seen.wake()),
      tokenExpirationSeconds: 1, // the client asks again at 90 % of it
    });
    connection.send({ prompt: "a red circle", request_id: "before" });
    await seen.until(() => seen.results.length + seen.errors.length > 0 && provider.calls.length >= 3);
    connection.send({ prompt: "a red circle", request_id: "after" });
    const ids = () => seen.results.map((result) => result.request_id);
    await seen.until(() => ids().includes("after") || seen.errors.length > 0);
    return { ids: [...new Set(ids())], errors: errors(seen), sockets: sockets.length };
  },

  async one_input() {
    return ask(open(APP), at.input);
  },

  async custom_path() {
    const provider = tokenProvider(at.authsvc, at.key);
    const image_bytes = new Uint8Array(Buffer.from(at.image, "base64"));
    const connected = open(APP, { path: at.path, tokenProvider: provider });
    return { ...(await ask(connected, { prompt: "a red circle", image_bytes })), sent: [], asked: provider.calls };
  },

  async custom_codec() {
    // What is sent before the socket is open is encoded twice (realtime.js, onopen): a codec lets its own output pass.
    const encodeMessage = (input) => (typeof input === "string" ? input : JSON.stringify(input));
    const decodeMessage = (data) => (typeof data === "string" ? JSON.parse(data) : { ...decode(data), by: "my codec" });
    return ask(open(APP, { encodeMessage, decodeMessage }), { prompt: "a red circle", request_id: "text" });
  },

  async default_token_provider() {
    const client = createFalClient({ credentials: at.key, requestMiddleware: redirected(at) });
    return ask(open(APP, { tokenProvider: undefined }, client));
  },

  async through_the_server_proxy() {
    const proxy = await falProxy(at.authsvc, at.key);
    const client = createFalClient({ proxyUrl: { url: proxy.url, when: "always" } });
    return { ...(await ask(open(APP, { tokenProvider: undefined }, client))), proxied: proxy.targets };
  },

  async streamed_results() {
    const { connection, seen } = open(at.app, { path: at.path });
    connection.send(at.input);
    await seen.until(() => seen.results.length + seen.errors.length > 0);
    const code = await sockets[0].closing;
    return { results: seen.results, errors: errors(seen), code };
  },

  async run() {
    const client = createFalClient({ credentials: at.key, requestMiddleware: redirected(at) });
    try {
      const { data, requestId } = await client.run(APP, { input: at.input });
      return { keys: Object.keys(data), requestId };
    } catch ({ name, status, message, body, requestId, fieldErrors }) {
      return { name, status, message, body, requestId, fieldErrors };
    }
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
process.exit(0); // open sockets and refresh timers would keep Node alive
