/** What carries out an operation: from a checked request to its answer. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { AnswerOf, OperationId, RequestOf } from './operations.js';

/** A checked request. */
export interface CallOf<K extends OperationId> extends RequestOf<K> {
  readonly headers: IncomingHttpHeaders;
  /** The body of an operation that takes a stream. */
  readonly stream: IncomingMessage;
  /** Aborted when the client is gone, or the server stops. */
  readonly signal: AbortSignal;
}

/** An answer that comes in pieces. If the first one fails, the request has failed. */
export class StreamAnswer {
  readonly type: string;
  readonly chunks: AsyncIterable<Uint8Array | string>;
  readonly headers: Readonly<Record<string, string | number>>;

  constructor(
    type: string,
    chunks: AsyncIterable<Uint8Array | string>,
    options: { readonly headers?: Readonly<Record<string, string | number>> } = {},
  ) {
    this.type = type;
    this.chunks = chunks;
    this.headers = options.headers ?? {};
  }
}

type Answer<K extends OperationId> = AnswerOf<K> | StreamAnswer;
export type Handler<K extends OperationId> = (call: CallOf<K>) => Answer<K> | Promise<Answer<K>>;
export type Handlers = { readonly [K in OperationId]: Handler<K> };
