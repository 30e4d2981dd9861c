// A client of the event broker: it connects again by itself, and resumes where it was.
//
//     import { connect } from "http://localhost:8080/client.js";
//
//     const client = connect("http://localhost:8080", { token: async () => (await fetch("/token")).text() });
//     const games = client.subscribe("games.**", ({ event, data }) => console.log(event, data));
//     client.on("gap", () => location.reload());

/** Any value that JSON can hold. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface BrokerEvent<Data = any> {
  /** Its name. */
  readonly event: string;
  /** Its payload, as `JSON.parse` reads it. */
  readonly data: Data;
  /** Its place in the broker's log: a text that means something to this broker only. */
  readonly id: string;
}

export interface Subscription {
  readonly pattern: string;
  /**
   * Resolves when the broker has confirmed the pattern: what happens from then on comes. Rejects with a `BrokerError` if it
   * is refused, which is told as an `error` as well.
   */
  readonly ready: Promise<void>;
  /** No call of the handler from now on; the broker is told when nobody else holds the pattern. */
  unsubscribe(): void;
}

/** A connection has ended, or could not be made. */
export interface Ending {
  /** The close code; 1006 where there was none. */
  readonly code: number;
  readonly reason: string;
  /** Milliseconds until the next try; null: there will be none. */
  readonly retryIn: number | null;
}

/** What the broker's application sends by `connection.send`, `broadcast` and the like. */
export type Message = Json | ArrayBuffer;

export interface ClientEvents {
  /** Connected, and all that was missed has come. */
  open: undefined;
  close: Ending;
  /** Events are gone for good: the broker's log no longer reached back to where this client was. It goes on from now. */
  gap: BrokerError;
  /** The broker refuses this client for good (`fatal`), a subscription (it has its `pattern`), or something else. */
  error: BrokerError;
  /**
   * What the application has sent that is no event: the value where the text is JSON, the text itself where it is none, binary
   * as an `ArrayBuffer`. It has no place in the log: what is sent while this client is away does not come later.
   */
  message: Message;
}

export interface Options {
  /** A token, or what gives one: it is asked for each connection, and when a token has expired. */
  token?: string | (() => string | Promise<string>);
  /** For a reply, a handshake, a sign of life, the answer to one request. In milliseconds; 10 seconds if left out. */
  timeout?: number;
  /** Where the WebSocket is, from the broker's URL; `ws` if left out. */
  path?: string;
  /** Where events are published, from the broker's URL; `events` if left out. */
  eventsPath?: string;
  /** A class like the browser's; for Node before version 22 that of the package `ws`. */
  WebSocket?: new (url: string) => any;
  fetch?: typeof fetch;
}

export interface Client {
  /**
   * Call the handler with each event whose name matches the pattern, until it is unsubscribed. An event comes once to each
   * subscription that it matches, in the order in which the broker took it.
   */
  subscribe<Data = any>(pattern: string, handler: (event: BrokerEvent<Data>) => unknown): Subscription;

  /**
   * Give a command, when there is a connection; resolves with the data of its reply. Rejects with a `BrokerError`: the code of
   * the reply; "timeout", which counts from now; "connection_lost" where nobody knows whether it was carried out.
   */
  command<Reply = any>(event: string, data?: unknown, options?: { timeout?: number }): Promise<Reply>;

  /**
   * Publish an event by `POST /events`; resolves with its id. Tried again while the broker is busy or can't be reached, for
   * `timeout` milliseconds in all (30 seconds if left out); its id keeps it from being delivered twice.
   */
  publish(event: string, data?: unknown, options?: { id?: string; timeout?: number }): Promise<string>;

  /** Listen; the function returned ends that. A `gap` or an `error` that nobody listens to goes to the console. */
  on<Kind extends keyof ClientEvents>(kind: Kind, listener: (value: ClientEvents[Kind]) => unknown): () => void;

  /** The end: what waits is rejected with the code "closed", and nothing is left behind. */
  close(): void;
}

export declare class BrokerError extends Error {
  constructor(code: string | number, message: string, more?: object);
  /**
   * The broker's own (`bad_pattern`, `not_permitted` …), or one of "closed", "connection_lost", "timeout", "unreachable",
   * "too_many_commands", "http_<status>". With `fatal` a number: the close code, or the HTTP status of the handshake.
   */
  readonly code: string | number;
  /** Whether this is the end of the client. */
  readonly fatal: boolean;
  /** The pattern that was refused. */
  readonly pattern?: string;
  /** What the broker said when it closed the connection. */
  readonly reason?: string;
}

/** A client of the broker that served this module, which connects at once. */
export declare function connect(options?: Options): Client;
/** A client of the broker at this URL, with `http`, `https`, `ws` or `wss`. */
export declare function connect(url: string | URL | null | undefined, options?: Options): Client;

/** Whether a pattern matches a name: `*` is one segment, `**` one or more. */
export declare function matches(pattern: string, name: string): boolean;
