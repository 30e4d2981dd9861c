// A client of the event broker, for browsers and for Node 20 or later; `client.d.ts` says how it is used.
//
// Theory. The client keeps its position in the broker's log: the id of the last event, or the place that the broker named
// last. A connection begins with the patterns that have begun already and a `resume` from there. Events in between have no
// id and are passed over, since they come again. When the `resume` is answered the connection is live; now what has no id is
// a message. Behind new patterns, and now and then, the position is asked for anew.

const LOST = 1006; // the close code of an end without one
const FATAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 4001, 4002, 4004]);
const REFUSAL = /response: (3\d\d|4(?!08|29)\d\d)$/; // an HTTP status as `ws` tells it; browsers do not

// In milliseconds.
const TIMEOUT = 10_000; // for a handshake, a reply, a sign of life, an answer to a request
const LONG_TIMEOUT = 30_000; // for a token, for all tries of a publish
const PROBE_AFTER = 30_000;
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 10_000;
const STEADY = 10_000; // after a connection that lasted so long, pauses begin anew

const MOST_COMMANDS = 1000; // without a reply
const PACE = 50; // commands in a second; a flood of them is fatal

export class BrokerError extends Error {
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { name: "BrokerError", code, fatal: false }, more);
  }
}

/** A client of the broker at `url`; without one, of that which served this module. */
export function connect(url, options = {}) {
  if (url && typeof url !== "string" && !(url instanceof URL)) return connect(null, url);
  const broker = new URL(url ?? ".", import.meta.url);
  if (!/^(http|ws)s?:$/.test(broker.protocol)) throw new TypeError("connect() needs the URL of a broker");
  broker.protocol = broker.protocol.replace("ws", "http");
  if (!broker.pathname.endsWith("/")) broker.pathname += "/";
  return new Client(broker, { WebSocket: globalThis.WebSocket, fetch, timeout: TIMEOUT, ...options });
}

/** Whether a pattern matches a name: `*` is one segment, `**` one or more, neither in the broker's own names. */
export function matches(pattern, name) {
  return name.startsWith("broker.") ? pattern === name : segmentsMatch(pattern.split("."), name.split("."));
}

function segmentsMatch(pattern, name) {
  let at = 0;
  let many = -1; // where the last `**` stands
  let taken = 0; // how much of the name it has taken, with what stands before it
  for (let next = 0; next < name.length; ) {
    if (pattern[at] === "**") {
      many = at++;
      taken = ++next;
    } else if (pattern[at] === "*" || pattern[at] === name[next]) {
      at++;
      next++;
    } else if (many >= 0) {
      at = many + 1; // the `**` takes one more
      next = ++taken;
    } else {
      return false;
    }
  }
  return at === pattern.length;
}

class Client {
  #options;
  #socketUrl;
  #eventsUrl;
  #token;
  #listeners = {
    __proto__: null,
    open: new Set(),
    close: new Set(),
    gap: new Set(),
    error: new Set(),
    message: new Set(),
  };
  #patterns = new Map(); // pattern → Held
  #commands = new Set(); // that have no reply yet
  #lastId = 0;
  #position = null;
  #over = null; // why there will be no more connection
  #closed = null; // the same, if it was wanted
  #stops = new Set(); // end the waits when the client is closed
  #hurry = () => {}; // ends the pause between two connections

  // The present connection.
  #wire = null;
  #liveSince = null;
  #sent = new Set(); // the patterns that it was told
  #resuming = false;
  #stale = false; // the position is older than they
  #changed = false; // others are wanted

  constructor(broker, options) {
    if (!options.WebSocket) throw new TypeError("there is no WebSocket here: give the class as an option");
    this.#options = options;
    this.#socketUrl = new URL(options.path ?? "ws", broker);
    this.#socketUrl.protocol = broker.protocol.replace("http", "ws");
    this.#eventsUrl = new URL(options.eventsPath ?? "events", broker);
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#run();
  }

  on(kind, listener) {
    if (!this.#listeners[kind]) throw new TypeError(`a client tells ${Object.keys(this.#listeners)}, not ${kind}`);
    this.#listeners[kind].add(listener);
    return () => this.#listeners[kind].delete(listener);
  }

  subscribe(pattern, handler) {
    if (typeof pattern !== "string" || typeof handler !== "function") {
      throw new TypeError("subscribe() takes a pattern and a function");
    }
    if (this.#over) throw this.#over;
    const held = this.#patterns.get(pattern) ?? new Held(pattern);
    const entry = { handler };
    held.entries.add(entry);
    this.#patterns.set(pattern, held);
    this.#tellPatterns();
    return { pattern, ready: held.ready, unsubscribe: () => this.#unsubscribe(held, entry) };
  }

  async command(event, data = null, { timeout = this.#options.timeout } = {}) {
    if (this.#over) throw this.#over;
    if (this.#commands.size >= MOST_COMMANDS) throw new BrokerError("too_many_commands", "too many wait already");
    const command = this.#makeCommand(event, data);
    const reply = new Promise((resolve, reject) => {
      command.answered = (error, answer) => (error ? reject(error) : resolve(answer));
      command.fail = reject;
    });
    this.#commands.add(command);
    if (this.#liveSince) this.#wire.send(command);
    try {
      return await this.#within(timeout, reply, new BrokerError("timeout", `no reply to ${event} in ${timeout} ms`));
    } finally {
      this.#commands.delete(command);
      this.#wire?.forget(command);
    }
  }

  async publish(event, data = null, { id, timeout = LONG_TIMEOUT } = {}) {
    if (this.#closed) throw this.#closed;
    id ??= crypto.getRandomValues(new Uint32Array(4)).join("-"); // `randomUUID()` needs TLS
    const body = JSON.stringify({ event, data, id });
    const end = Date.now() + timeout;
    let renewable = typeof this.#options.token === "function";
    if (!this.#token) await this.#freshToken();
    for (let failures = 0; ; failures++) {
      const { status, ids, error, code = `http_${status}`, wait } = await this.#post(body, end - Date.now());
      if (status === 202) return ids[0];
      if (status === 401 && renewable) {
        renewable = false;
        await this.#freshToken();
        continue;
      }
      const temporary = !status || status === 408 || status === 429 || status >= 500;
      const retryIn = (wait || 0) + pause(failures);
      if (!temporary || Date.now() + retryIn >= end) throw new BrokerError(status ? code : "unreachable", error);
      await this.#within(retryIn);
    }
  }

  close() {
    if (this.#closed) return;
    this.#closed = new BrokerError("closed", "the client is closed");
    this.#finish(this.#closed);
    for (const stop of this.#stops) stop(this.#closed);
  }

  // -- one connection after the other

  async #run() {
    for (let failures = 0; !this.#over; failures++) {
      const { code, reason, lasted } = await this.#converse().catch((error) => ({ code: LOST, reason: `${error}` }));
      if (this.#over) return;
      if (lasted >= STEADY) failures = 0;
      const expired = code === 4003;
      const renewable = typeof this.#options.token === "function";
      if (FATAL.has(code) || code < 1000 || (expired && !renewable)) return this.#fail(code, reason);
      const retryIn = expired && failures === 0 ? 0 : pause(failures);
      this.#emit("close", { code, reason, retryIn });
      await this.#within(retryIn, new Promise((hurry) => (this.#hurry = hurry))).catch(() => {});
    }
  }

  async #converse() {
    const token = await this.#freshToken();
    if (this.#over) throw this.#over;
    const url = new URL(this.#socketUrl);
    if (token) url.searchParams.set("token", token);
    const { WebSocket, timeout } = this.#options;
    return new Promise((ended) => {
      this.#wire = new Wire(new WebSocket(url.href), timeout, {
        open: () => this.#greet(),
        take: (message) => this.#take(message),
        probe: () => this.#resume(null),
        end: (end) => {
          ended({ ...end, lasted: this.#liveSince && Date.now() - this.#liveSince });
          this.#wire = this.#liveSince = null;
        },
      });
    });
  }

  async #freshToken() {
    const { token } = this.#options;
    const late = new BrokerError("timeout", "no token in time");
    return (this.#token = typeof token === "function" ? await this.#within(LONG_TIMEOUT, token(), late) : token);
  }

  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    this.#hurry();
    if (this.#liveSince) this.#wire.probe();
  };

  #fail(code, reason) {
    const error = new BrokerError(code, `the broker refuses this client: ${code} ${reason}`, { fatal: true, reason });
    this.#finish(error);
    this.#emit("close", { code, reason, retryIn: null });
    this.#emit("error", error);
  }

  #finish(error) {
    this.#over = error;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    for (const command of this.#commands) command.fail(error);
    for (const held of this.#patterns.values()) held.end(error);
    this.#patterns.clear();
    this.#wire?.end(1000, "");
  }

  // -- what is said, and in which order

  #greet() {
    this.#sent.clear();
    this.#subscribe([...this.#patterns.values()].filter((held) => held.begun));
    this.#resume(this.#position);
  }

  #resume(position) {
    this.#resuming = true;
    this.#send("resume", position, this.#resumed);
  }

  #resumed = (error, data) => {
    if (error?.code === "resume_in_progress") return; // to a probe while much is replayed
    this.#resuming = false;
    const gap = error?.code === "resume_gap";
    if (error && !gap && !this.#liveSince) return this.#wire.end(LOST, error.message);
    if (!error) this.#position = data.id;
    if (gap) {
      this.#resume(null); // until that is answered the old position stays, and is a gap again
      this.#emit("gap", error);
    }
    this.#tellPatterns();
    if (this.#liveSince || !this.#wire) return;
    this.#liveSince = Date.now();
    for (const command of this.#commands) this.#wire.send(command);
    this.#emit("open");
  };

  /** Tell the broker which patterns come and go, once for all of this turn. */
  #tellPatterns() {
    if (this.#changed) return;
    this.#changed = true;
    queueMicrotask(() => {
      this.#changed = false;
      if (!this.#liveSince) return;
      for (const held of this.#sent) {
        if (this.#patterns.get(held.pattern) === held) continue;
        this.#sent.delete(held);
        this.#send("unsubscribe", held.pattern);
      }
      const added = [...this.#patterns.values()].filter((held) => !this.#sent.has(held));
      this.#subscribe(added);
      this.#stale ||= added.length > 0;
      if (!this.#stale || this.#resuming) return;
      this.#stale = false;
      this.#resume(null);
    });
  }

  #subscribe(added) {
    for (const held of added) {
      this.#sent.add(held);
      this.#send("subscribe", held.pattern, (error) => this.#subscribed(held, error), true);
    }
  }

  #send(event, data, answered, free) {
    this.#wire.send({ ...this.#makeCommand(event, data), answered, free });
  }

  #makeCommand(event, data) {
    const id = ++this.#lastId;
    return { id, text: JSON.stringify({ event, data, id }) };
  }

  // -- what comes

  #take(message) {
    const { event, data, id, error, code } = Object(message);
    if (typeof error === "string" && typeof code === "string") return this.#emit("error", new BrokerError(code, error));
    if (typeof event !== "string" || typeof id !== "string") {
      const comesAgain = ({ pattern }) => typeof event === "string" && matches(pattern, event);
      if (this.#liveSince || ![...this.#sent].some(comesAgain)) this.#emit("message", message);
      return;
    }
    this.#position = id;
    for (const held of [...this.#patterns.values()]) {
      if (!held.begun || !matches(held.pattern, event)) continue;
      for (const entry of [...held.entries]) if (held.entries.has(entry)) guarded(entry.handler, { event, data, id });
    }
  }

  #subscribed(held, error) {
    if (this.#patterns.get(held.pattern) !== held) return;
    if (!error) return held.begin();
    this.#patterns.delete(held.pattern);
    this.#sent.delete(held);
    held.end(error);
    this.#emit("error", Object.assign(error, { pattern: held.pattern }));
  }

  #unsubscribe(held, entry) {
    if (!held.entries.delete(entry) || held.entries.size) return;
    this.#patterns.delete(held.pattern);
    held.end(new BrokerError("closed", `${held.pattern} was unsubscribed`));
    this.#tellPatterns();
  }

  #emit(kind, value) {
    const listeners = [...this.#listeners[kind]];
    if (!listeners.length && value instanceof BrokerError) console.warn(`broker: ${kind}: ${value.message}`);
    for (const listener of listeners) guarded(listener, value);
  }

  // -- waiting

  /** What one request brings; nothing but an `error` if there is no answer. */
  async #post(body, timeout) {
    const aborter = new AbortController();
    const { fetch } = this.#options; // called as a method it would refuse
    const headers = { "Content-Type": "application/json" };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    const ask = async () => {
      const answer = await fetch(this.#eventsUrl, { method: "POST", headers, body, signal: aborter.signal });
      const { status } = answer;
      const told = await answer.json().catch(() => null);
      return { error: `HTTP ${status}`, ...told, status, wait: 1000 * answer.headers.get("Retry-After") };
    };
    try {
      return await this.#within(Math.min(timeout, this.#options.timeout), ask(), new Error("no answer"));
    } catch (error) {
      return { error: `${error}` };
    } finally {
      aborter.abort();
    }
  }

  /** What a promise brings; after so many milliseconds nothing, or the error `late`. Fails on `close()`. */
  #within(milliseconds, promise = new Promise(() => {}), late) {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw this.#closed;
      const ending = (settle) => (value) => {
        clearTimeout(timer);
        this.#stops.delete(stop);
        settle(value);
      };
      const stop = ending(reject);
      const timer = setTimeout(ending(late ? reject : resolve), milliseconds, late);
      this.#stops.add(stop);
      Promise.resolve(promise).then(ending(resolve), stop);
    });
  }
}

/** A pattern, who subscribed to it, and whether the broker has confirmed it. */
class Held {
  begun = false;
  entries = new Set();

  constructor(pattern) {
    this.pattern = pattern;
    this.ready = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.ready.catch(() => {}); // who does not wait for it is told an `error`
  }

  begin() {
    this.begun = true;
    this.resolve();
  }

  end(error) {
    this.entries.clear();
    this.reject(error);
  }
}

/** One socket: commands go out at a pace that the broker bears, replies find who asked, silence is the end. */
class Wire {
  #socket;
  #timeout;
  #hooks;
  #timer;
  #queue = [];
  #asked = new Map(); // id → command
  #credit = PACE;
  #refill = null;
  #heard;

  constructor(socket, timeout, hooks) {
    Object.assign(socket, {
      onopen: () => {
        socket.onerror = () => {}; // the end comes as well, and tells more
        this.#rest();
        hooks.open();
      },
      binaryType: "arraybuffer",
      onmessage: ({ data }) => this.#hear(data),
      onerror: ({ message = "" }) => this.end(+(REFUSAL.exec(message)?.[1] ?? LOST), message),
      onclose: ({ code, reason }) => this.end(code, reason),
    });
    this.#socket = socket;
    this.#timeout = timeout;
    this.#hooks = hooks;
    this.#timer = setTimeout(() => this.end(LOST, "no answer to the handshake"), timeout);
  }

  send(command) {
    this.#queue.push(command);
    this.#drain();
  }

  forget(command) {
    command.over = true;
    this.#asked.delete(command.id);
  }

  /** Ask for a sign of life; without one it is the end. */
  probe() {
    clearTimeout(this.#timer);
    this.#heard = false;
    this.#timer = setTimeout(() => (this.#heard ? this.#rest() : this.end(LOST, "no sign of life")), this.#timeout);
    this.#hooks.probe();
  }

  end(code, reason) {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#refill);
    socket.onopen = socket.onmessage = socket.onclose = null; // `ws` wants its errors heard
    socket.close(1000);
    const lost = new BrokerError("connection_lost", "the connection ended before the reply came");
    for (const command of this.#asked.values()) command.fail?.(lost);
    this.#hooks.end({ code, reason });
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.probe(), PROBE_AFTER);
  }

  #drain() {
    while (this.#queue.length && (this.#credit > 0 || this.#queue[0].free)) {
      const command = this.#queue.shift();
      if (command.over) continue;
      if (!command.free) this.#spend();
      if (command.answered) this.#asked.set(command.id, command);
      this.#socket.send(command.text);
    }
  }

  #spend() {
    this.#credit--;
    this.#refill ??= setTimeout(() => {
      this.#refill = null;
      this.#credit = PACE;
      this.#drain();
    }, 1000);
  }

  #hear(message) {
    this.#heard = true;
    try {
      message = JSON.parse(message);
    } catch {} // no JSON, as binary never is
    const { reply, error, code, data } = Object(message);
    if (typeof reply !== "number") return this.#hooks.take(message);
    const command = this.#asked.get(reply);
    this.#asked.delete(reply);
    command?.answered(error === undefined ? null : new BrokerError(code, error), data);
  }
}

function pause(failures) {
  return Math.random() * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** failures);
}

/** What somebody else's function throws ends where errors end that nobody catches. */
function guarded(callback, value) {
  try {
    callback(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
