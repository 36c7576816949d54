/**
 * The transmission phase of one connection: takes requests from the stream and sees them begun.
 *
 * 1. A request is checked before anything is kept for it. One that fails is answered with an error;
 *    its payload, if it has one, is skipped; the connection goes on.
 * 2. A request that needs memory which is not there stays at the head of the line and nothing
 *    behind it is looked at: 'stalled', until something has ended.
 * 3. A payload that came within one chunk is written from there; any other is copied once, into a
 *    buffer of its own.
 *
 * Source: proto.md, "Transmission phase", "Request message".
 */
import { type Loan, sizeOfLoan } from './buffer-pool.js';
import type { ByteSource } from './byte-source.js';
import * as nbd from './protocol.js';
import {
  checkRequest,
  checkStatusAsked,
  hasStatusPayload,
  payloadBytesOf,
  type Refusal,
} from './request-check.js';
import { type RequestCounts, RequestWork, type RequestWorkOptions } from './request-work.js';
import { type Step, violation } from './step.js';
import * as wire from './wire-transmission.js';

/** A payload that is refused is skipped up to this size; a longer one ends the connection. */
const SKIPPED_PAYLOAD_BYTES_MAX = 2 * nbd.REQUEST_BYTES_MAX;

export interface TransmissionOptions extends RequestWorkOptions {
  readonly requestsMax: number;
}

/** A payload that is not here yet, or not all of it. */
type Payload =
  | { readonly kind: 'gathered'; readonly loan: Loan; doneBytes: number }
  | { readonly kind: 'skipped'; readonly refusal: Refusal; doneBytes: number }
  /** Of a block status: a few bytes, looked at when all of them are here. */
  | { readonly kind: 'contexts'; readonly payloadBytes: number };

export class Transmission {
  readonly #options: TransmissionOptions;
  readonly #work: RequestWork;
  readonly #request = wire.emptyRequest();
  readonly #isExtended: boolean;
  /** True if the request was decoded and could not begin yet. */
  #isHeld = false;
  #payload: Payload | undefined;

  constructor(options: TransmissionOptions) {
    this.#options = options;
    this.#isExtended = options.agreement.style === 'extended';
    this.#work = new RequestWork(options);
  }

  /** Requests that were begun and are not answered. */
  get inFlight(): number {
    return this.#work.inFlight;
  }

  get counts(): RequestCounts {
    return this.#work.counts;
  }

  /** True in the middle of a payload, which only the client can go on with. */
  get awaitsPayload(): boolean {
    return this.#payload !== undefined && !this.#isHeld;
  }

  /** Deals with the next item: a request, or more of a payload. */
  step(source: ByteSource): Step {
    if (this.#payload !== undefined) return this.#continue(source, this.#payload);
    if (this.#isHeld) return this.#begin(source);
    return this.#readRequest(source);
  }

  /** The connection is gone: lets go of what would have been written. */
  close(): void {
    if (this.#payload?.kind === 'gathered') this.#options.pool.release(this.#payload.loan);
    this.#payload = undefined;
  }

  #readRequest(source: ByteSource): Step {
    const request = this.#request;
    if (this.#isExtended) {
      if (!source.locate(wire.EXTENDED_REQUEST_BYTES)) return 'wait';
      wire.decodeExtendedRequest(source.bytes, source.at, request);
      source.skip(wire.EXTENDED_REQUEST_BYTES);
      if (request.magic !== nbd.NBD_EXTENDED_REQUEST_MAGIC) return violation('bad request magic');
    } else {
      if (!source.locate(wire.REQUEST_BYTES)) return 'wait';
      wire.decodeRequest(source.bytes, source.at, request);
      source.skip(wire.REQUEST_BYTES);
      if (request.magic !== nbd.NBD_REQUEST_MAGIC) return violation('bad request magic');
    }
    return this.#begin(source);
  }

  #begin(source: ByteSource): Step {
    const request = this.#request;
    if (request.type === nbd.NBD_CMD_DISC) return 'disconnect';
    if (this.#work.inFlight >= this.#options.requestsMax) return this.#hold();
    this.#isHeld = false;
    const { agreement } = this.#options;
    const refusal = checkRequest(request, agreement);
    if (refusal !== undefined) return this.#refuse(refusal);
    switch (request.type) {
      case nbd.NBD_CMD_READ:
        return this.#work.read(request) ? 'next' : this.#hold();
      case nbd.NBD_CMD_WRITE:
        return this.#beginWrite(source, request);
      case nbd.NBD_CMD_BLOCK_STATUS:
        if (!hasStatusPayload(request)) {
          return this.#work.status(request, agreement.contexts) ? 'next' : this.#hold();
        }
        this.#payload = { kind: 'contexts', payloadBytes: request.length };
        return 'next';
      default:
        this.#work.other(request);
        return 'next';
    }
  }

  #hold(): Step {
    this.#isHeld = true;
    return 'stalled';
  }

  #beginWrite(source: ByteSource, request: wire.Request): Step {
    const { length } = request;
    if (length === 0) {
      this.#work.nothing(request);
      return 'next';
    }
    const chunk = source.bytes;
    const view = source.takeView(length);
    if (view !== undefined) {
      this.#work.write(request, view, chunk);
      return 'next';
    }
    const { account, pool } = this.#options;
    if (!account.take(sizeOfLoan(length))) return this.#hold();
    this.#payload = { kind: 'gathered', loan: pool.lend(length, account), doneBytes: 0 };
    return 'next';
  }

  /** Answers once the payload is past: what follows it is the next request. */
  #refuse(refusal: Refusal): Step {
    const payloadBytes = payloadBytesOf(this.#request, this.#options.agreement.style);
    if (payloadBytes === 0) {
      this.#work.refuse(this.#request, refusal);
      return 'next';
    }
    if (payloadBytes > SKIPPED_PAYLOAD_BYTES_MAX) {
      return violation(`a payload of ${payloadBytes} bytes`);
    }
    this.#payload = { kind: 'skipped', refusal, doneBytes: 0 };
    return 'next';
  }

  #continue(source: ByteSource, payload: Payload): Step {
    if (payload.kind === 'contexts') return this.#readContexts(source, payload.payloadBytes);
    const { length } = this.#request;
    const restBytes = length - payload.doneBytes;
    payload.doneBytes +=
      payload.kind === 'skipped'
        ? source.skip(restBytes)
        : source.copy(payload.loan.bytes, payload.doneBytes, restBytes);
    if (payload.doneBytes < length) return 'wait';
    this.#payload = undefined;
    if (payload.kind === 'skipped') {
      this.#work.refuse(this.#request, payload.refusal);
    } else {
      const { loan } = payload;
      this.#work.write(this.#request, loan.bytes.subarray(0, length), loan);
    }
    return 'next';
  }

  /** The length in the header was that of the payload: the one in there counts from here on. */
  #readContexts(source: ByteSource, payloadBytes: number): Step {
    if (!source.locate(payloadBytes)) return 'wait';
    const request = this.#request;
    const payload = wire.decodeStatusPayload(source.bytes, source.at, payloadBytes);
    request.length = payload.length;
    const asked = checkStatusAsked(request, payload.contextIds, this.#options.agreement);
    if (asked.kind === 'refused') this.#work.refuse(request, asked.refusal);
    else if (!this.#work.status(request, asked.contexts)) return this.#hold();
    this.#isHeld = false;
    source.skip(payloadBytes);
    this.#payload = undefined;
    return 'next';
  }
}
