// An Express application with a login of its own. In yours, keep your login and the lines about fal-token.mjs.
import { createHash, timingSafeEqual } from "node:crypto";
import express from "express";
import session from "express-session";
import { revoke, TokenServiceError, tokenRoute } from "./fal-token.mjs";

const { LOGIN_PASSWORD, SESSION_SECRET, COOKIE_INSECURE, PORT = "3000" } = process.env;
if (!LOGIN_PASSWORD || !SESSION_SECRET) throw new Error("set LOGIN_PASSWORD and SESSION_SECRET");

// Your user table. The id goes into tokens and into the runner's log: opaque, not a mail address.
const USERS = new Map([["ada", { id: "user-1", password: LOGIN_PASSWORD }]]);

/** Who is logged in; the user must still be one. */
function currentUserId(request) {
  return [...USERS.values()].find((user) => user.id === request.session.userId)?.id;
}

/** Compares in time that depends on neither: equally long hashes. */
function isEqual(one, other) {
  const [left, right] = [one, other].map((text) => createHash("sha256").update(String(text)).digest());
  return timingSafeEqual(left, right);
}

const app = express();
app.disable("x-powered-by");
app.set("trust proxy", "loopback"); // the TLS proxy on this machine says whether the visitor came by https
app.use((request, response, next) => {
  response.set("Cache-Control", "no-store");
  // Against forged requests: browsers say where a request comes from, and let no page lie about it.
  if ((request.get("Sec-Fetch-Site") ?? "same-origin") === "same-origin") return next();
  response.status(403).json({ detail: "This request did not come from this site's own page." });
});
app.use(session({
  secret: SESSION_SECRET,
  resave: false,
  saveUninitialized: false,
  cookie: { httpOnly: true, sameSite: "lax", secure: COOKIE_INSECURE !== "1", maxAge: 8 * 3600 * 1000 },
}));
app.use(express.json({ limit: "16kb" }));
app.use(tokenRoute(currentUserId));

app.post("/api/login", async (request, response) => {
  const user = USERS.get(request.body?.username);
  const isRight = isEqual(request.body?.password ?? "", user?.password ?? "");
  if (!user || !isRight) return response.status(401).json({ detail: "That name and password do not go together." });
  // A new session: an id planted in the browser beforehand must not become a login.
  await new Promise((done, failed) => request.session.regenerate((error) => (error ? failed(error) : done())));
  request.session.userId = user.id;
  response.sendStatus(204);
});

/** Ends the session, and with it the user's tokens and open sockets. */
app.post("/api/logout", async (request, response) => {
  const userId = currentUserId(request);
  await new Promise((done, failed) => request.session.destroy((error) => (error ? failed(error) : done())));
  if (userId) await revoke(userId);
  response.sendStatus(204);
});

app.use((error, request, response, next) => {
  if (error instanceof TokenServiceError) {
    if (error.retryAfter) response.set("Retry-After", error.retryAfter);
    return response.status(error.status).json({ detail: error.message });
  }
  const status = error.expose ? error.status : 500; // express.json() exposes what is the visitor's fault
  if (status === 500) console.error(error);
  response.status(status).json({ detail: status === 500 ? "Something went wrong." : "The request is not readable." });
});

const server = app.listen(Number(PORT), "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
