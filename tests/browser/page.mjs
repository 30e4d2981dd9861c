// A page without a browser: Node carries out what comes as JSON lines, and prints as JSON lines what the client tells.
// Unless it is started with `--real-time`, the client's timers stand still until one is told to `fire`, a random number is
// always the largest one, and requests are answered by whoever drives it.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , moduleFile, ...flags] = process.argv;
const { connect, matches } = await import(pathToFileURL(moduleFile));

const tell = (line) => console.log(JSON.stringify(line));
const readable = (message) => (message instanceof ArrayBuffer ? { binary: [...new Uint8Array(message)] } : message);
const failed = (error) => ({ code: error.code, message: error.message });

process.on("uncaughtException", (error) => tell({ uncaught: error.message }));
console.warn = (text) => tell({ warned: text });

const timers = new Map();
let sleptFor = 0;
if (!flags.includes("--real-time")) {
  const { setTimeout: realSetTimeout, clearTimeout: realClearTimeout } = globalThis;
  const realNow = Date.now;
  globalThis.setTimeout = (callback, milliseconds, ...values) => {
    const [, , caller] = new Error().stack.split("\n");
    if (!caller.includes(pathToFileURL(moduleFile).href)) return realSetTimeout(callback, milliseconds, ...values);
    const timer = Symbol("timer");
    timers.set(timer, { milliseconds, callback: () => callback(...values) });
    return timer;
  };
  globalThis.clearTimeout = (timer) => timers.delete(timer) || realClearTimeout(timer);
  Math.random = () => 1;
  Date.now = () => realNow() + sleptFor;
}

const requests = [];
const askForAnswer = (url, { method, headers, body, signal }) =>
  new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("aborted")));
    requests.push({ resolve, reject });
    tell({ request: `${url}`, method, headers, body: JSON.parse(body) });
  });

let client;
const held = new Map(); // name → subscription

const deeds = {
  connect({ url, socket, options: { tokens, ...options } }) {
    if (socket === "none") options.WebSocket = undefined;
    if (socket === "ws") options.WebSocket = createRequire(import.meta.url)("ws");
    if (tokens === "for ever") {
      options.token = () => new Promise(() => {});
    } else if (tokens) {
      options.token = async () => {
        const token = tokens.shift();
        tell({ asked: "token" });
        if (token === undefined) throw new Error("no token today");
        return token;
      };
    }
    if (!flags.includes("--real-time")) options.fetch = askForAnswer;
    client = url === null ? connect(options) : connect(url, options);
    for (const kind of ["open", "close"]) client.on(kind, (value) => tell({ told: kind, ...value }));
  },
  listen({ kind }) {
    client.on(kind, ({ code, message, fatal, pattern, reason }) => tell({ told: kind, code, message, fatal, pattern, reason }));
  },
  hear: () => client.on("message", (message) => tell({ heard: readable(message) })),
  hearInVain: () => client.on("message", (message) => tell({ heard: readable(message) }))(),
  hearAndFail() {
    client.on("message", () => {
      throw new Error("who hears has a fault");
    });
  },
  listenInVain: ({ kind }) => client.on(kind, () => tell({ told: kind }))(),
  subscribe({ pattern, name, handler = "tell" }) {
    const handlers = {
      tell: ({ event, data, id }) => tell({ handed: name, event, data, id }),
      throw: () => {
        throw new Error(`${name} has a fault`);
      },
      close: () => client.close(),
      unsubscribeAll: () => held.forEach((subscription) => subscription.unsubscribe()),
    };
    held.set(name, client.subscribe(pattern, handlers[handler]));
  },
  ready: ({ name }) => settling(name, held.get(name).ready),
  unsubscribe: ({ name }) => held.get(name).unsubscribe(),
  command: ({ event, data, options, name }) => settling(name, client.command(event, data, options)),
  publish: ({ event, data, options, name }) => settling(name, client.publish(event, data, options)),
  several: ({ steps }) => steps.forEach(carryOut),
  close: () => client.close(),
  timers: () => tell({ timers: [...timers.values()].map(({ milliseconds }) => milliseconds) }),
  fire({ milliseconds }) {
    const [timer] = [...timers].find(([, { milliseconds: its }]) => its === milliseconds);
    const { callback } = timers.get(timer);
    timers.delete(timer);
    callback();
  },
  sleep: ({ milliseconds }) => (sleptFor += milliseconds),
  wake: () => listeners.forEach((listener) => listener()),
  listeners: () => tell({ listeners: listeners.size }),
  answer({ status, headers = {}, body }) {
    requests.shift().resolve(new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers }));
  },
  refuse: () => requests.shift().reject(new TypeError("fetch failed")),
  match: ({ pairs }) => tell({ matches: pairs.map(([pattern, name]) => matches(pattern, name)) }),
};

function settling(name, promise) {
  promise.then(
    (value) => tell({ settled: name, value }),
    (error) => tell({ settled: name, error: failed(error) }),
  );
}

function carryOut({ do: deed, ...rest }) {
  deeds[deed](rest);
}

// In Node nobody tells that the network is there again; in a browser it is `window` that does.
const listeners = new Set();
globalThis.addEventListener = (_kind, listener) => listeners.add(listener);
globalThis.removeEventListener = (_kind, listener) => listeners.delete(listener);

for await (const line of createInterface({ input: process.stdin })) {
  try {
    carryOut(JSON.parse(line, (_key, value) => (value?.$bigint ? BigInt(value.$bigint) : value)));
  } catch (error) {
    tell({ thrown: failed(error), kind: error.name });
  }
  tell({ done: true });
}

client?.close(); // nobody is there any more
