/**
 * Says whether a request may be carried out, before anything is kept for it.
 *
 * | request | flags | read-only export | beyond the end | over 32 MiB |
 * | --- | --- | --- | --- | --- |
 * | READ | FUA, DF (if there are chunks) | - | EINVAL | EINVAL |
 * | WRITE | FUA, PAYLOAD_LEN (if extended) | EPERM | ENOSPC | EINVAL |
 * | TRIM | FUA | EPERM | EINVAL | - |
 * | WRITE_ZEROES | FUA, NO_HOLE, FAST_ZERO | EPERM | ENOSPC | - |
 * | CACHE | FUA | - | EINVAL | - |
 * | BLOCK_STATUS | FUA, REQ_ONE, PAYLOAD_LEN (if extended) | - | EINVAL | - |
 * | FLUSH | FUA | - | - | - |
 *
 * Other flags and other requests are EINVAL. FUA counts where something is written.
 * Source: proto.md, "Command flags", "Request types", "Error values".
 */
import { BLOCK_BYTES } from '../../base/units.js';
import type { Agreement } from './handshake.js';
import type { MetaContext } from './meta-context.js';
import * as nbd from './protocol.js';
import { type HeaderStyle, type Request, statusPayloadBytes } from './wire-transmission.js';

export interface Refusal {
  readonly errno: number;
  readonly message: string;
}

/** Undefined if the request is in order. */
export function checkRequest(request: Request, agreement: Agreement): Refusal | undefined {
  const { FUA } = FLAGS;
  const payloadFlag = agreement.style === 'extended' ? nbd.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
  switch (request.type) {
    case nbd.NBD_CMD_READ: {
      const flags = agreement.style === 'simple' ? FUA : FLAGS.READ_CHUNKS;
      return checkFlags(request, flags) ?? checkLength(request) ?? checkEnd(request, agreement);
    }
    case nbd.NBD_CMD_WRITE:
      return (
        checkFlags(request, FUA | payloadFlag) ??
        checkWritable(agreement) ??
        checkLength(request) ??
        checkEnd(request, agreement, nbd.NBD_ENOSPC)
      );
    case nbd.NBD_CMD_TRIM:
      return checkFlags(request, FUA) ?? checkWritable(agreement) ?? checkEnd(request, agreement);
    case nbd.NBD_CMD_WRITE_ZEROES:
      return (
        checkFlags(request, FLAGS.WRITE_ZEROES) ??
        checkWritable(agreement) ??
        checkEnd(request, agreement, nbd.NBD_ENOSPC) ??
        checkFast(request, agreement)
      );
    case nbd.NBD_CMD_FLUSH:
      return checkFlags(request, FUA);
    case nbd.NBD_CMD_CACHE:
      return checkFlags(request, FUA) ?? checkEnd(request, agreement);
    case nbd.NBD_CMD_BLOCK_STATUS:
      return (
        checkFlags(request, FLAGS.BLOCK_STATUS | payloadFlag) ??
        checkContexts(agreement) ??
        (hasStatusPayload(request)
          ? checkStatusPayload(request, agreement)
          : checkStatusRange(request, agreement))
      );
    default:
      return refuse(nbd.NBD_EINVAL, `request type ${request.type} is not known here`);
  }
}

/**
 * How many bytes follow the request. In extended requests a flag says it; a write without the flag
 * is taken with its payload all the same, for without one it would mean nothing.
 */
export function payloadBytesOf(request: Request, style: HeaderStyle): number {
  const isFlagged = style === 'extended' && (request.flags & nbd.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
  return isFlagged || request.type === nbd.NBD_CMD_WRITE ? request.length : 0;
}

/** What a block status with a payload asks for, or why it may not be had. */
export type StatusAsked =
  | { readonly kind: 'asked'; readonly contexts: readonly MetaContext[] }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

/**
 * "the server MUST fail the request with NBD_EINVAL" for an id that was not negotiated, or twice.
 *
 * @param request  with the length that the payload has named
 */
export function checkStatusAsked(
  request: Request,
  contextIds: readonly number[],
  agreement: Agreement,
): StatusAsked {
  const contexts = agreement.contexts.filter(({ id }) => contextIds.includes(id));
  const refusal =
    contexts.length === contextIds.length
      ? checkStatusRange(request, agreement)
      : refuse(nbd.NBD_EINVAL, `context ids ${contextIds.join(', ')}: not selected, or twice`);
  return refusal === undefined ? { kind: 'asked', contexts } : { kind: 'refused', refusal };
}

const FLAGS = {
  FUA: nbd.NBD_CMD_FLAG_FUA,
  READ_CHUNKS: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_DF,
  WRITE_ZEROES: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO,
  BLOCK_STATUS: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_REQ_ONE,
} as const;

function checkFlags(request: Request, allowed: number): Refusal | undefined {
  if ((request.flags & ~allowed) === 0) return undefined;
  const flags = request.flags.toString(16);
  return refuse(nbd.NBD_EINVAL, `flags 0x${flags} do not go with request type ${request.type}`);
}

function checkWritable({ target }: Agreement): Refusal | undefined {
  if (!target.readOnly) return undefined;
  return refuse(nbd.NBD_EPERM, `'${target.name}' is read-only`);
}

function checkLength({ length }: Request): Refusal | undefined {
  if (length <= nbd.REQUEST_BYTES_MAX) return undefined;
  const message = `${length} bytes in one request, more than ${nbd.REQUEST_BYTES_MAX}`;
  return refuse(nbd.NBD_EINVAL, message);
}

function checkEnd(
  { offset, length }: Request,
  { target }: Agreement,
  errno: number = nbd.NBD_EINVAL,
): Refusal | undefined {
  const { sizeBytes } = target;
  if (offset <= sizeBytes && length <= sizeBytes - offset) return undefined;
  const message = `${length} bytes at ${offset} end beyond '${target.name}' (${sizeBytes} bytes)`;
  return refuse(errno, message);
}

/**
 * Whole blocks become zeroes by their pointers, which is quicker than any write. A part of a block
 * is read and written again like a write, and nothing is provisioned quickly: both are refused.
 */
function checkFast({ flags, offset, length }: Request, { target }: Agreement): Refusal | undefined {
  if ((flags & nbd.NBD_CMD_FLAG_FAST_ZERO) === 0) return undefined;
  const end = offset + length;
  const isWhole =
    offset % BLOCK_BYTES === 0 && (end % BLOCK_BYTES === 0 || end === target.sizeBytes);
  if (isWhole && (flags & nbd.NBD_CMD_FLAG_NO_HOLE) === 0) return undefined;
  return refuse(nbd.NBD_ENOTSUP, 'fast zeroes are for whole blocks of 4096 bytes, without NO_HOLE');
}

function checkContexts({ contexts }: Agreement): Refusal | undefined {
  if (contexts.length > 0) return undefined;
  return refuse(nbd.NBD_EINVAL, 'no metadata context was selected');
}

export function hasStatusPayload({ flags }: Request): boolean {
  return (flags & nbd.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
}

/** A length, then one id at least and each context once at most. */
function checkStatusPayload({ length }: Request, { contexts }: Agreement): Refusal | undefined {
  const isRight =
    length % 4 === 0 &&
    length >= statusPayloadBytes(1) &&
    length <= statusPayloadBytes(contexts.length);
  if (isRight) return undefined;
  const message = `a payload of ${length} bytes for block status of ${contexts.length} contexts`;
  return refuse(nbd.NBD_EINVAL, message);
}

function checkStatusRange(request: Request, agreement: Agreement): Refusal | undefined {
  if (request.length > 0) return checkEnd(request, agreement);
  return refuse(nbd.NBD_EINVAL, 'block status of no bytes');
}

function refuse(errno: number, message: string): Refusal {
  return { errno, message };
}
