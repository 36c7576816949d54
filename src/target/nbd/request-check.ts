/**
 * Says whether a request may be carried out, before anything is kept for it.
 *
 * | request | flags | read-only export | beyond the end | over 32 MiB |
 * | --- | --- | --- | --- | --- |
 * | READ | FUA, DF (if structured) | - | EINVAL | EINVAL |
 * | WRITE | FUA | EPERM | ENOSPC | EINVAL |
 * | TRIM | FUA | EPERM | EINVAL | - |
 * | WRITE_ZEROES | FUA, NO_HOLE, FAST_ZERO | EPERM | ENOSPC | - |
 * | CACHE | FUA | - | EINVAL | - |
 * | BLOCK_STATUS | FUA, REQ_ONE | - | EINVAL | - |
 * | FLUSH | FUA | - | - | - |
 *
 * Other flags and other requests are EINVAL. FUA counts where something is written.
 * Source: proto.md, "Command flags", "Request types", "Error values".
 */
import { BLOCK_BYTES } from '../../base/units.js';
import type { Agreement } from './handshake.js';
import * as nbd from './protocol.js';
import type { Request } from './wire-transmission.js';

export interface Refusal {
  readonly errno: number;
  readonly message: string;
}

/** Undefined if the request is in order. */
export function checkRequest(request: Request, agreement: Agreement): Refusal | undefined {
  const { FUA } = FLAGS;
  switch (request.type) {
    case nbd.NBD_CMD_READ: {
      const flags = agreement.isStructured ? FLAGS.READ_STRUCTURED : FUA;
      return checkFlags(request, flags) ?? checkLength(request) ?? checkEnd(request, agreement);
    }
    case nbd.NBD_CMD_WRITE:
      return (
        checkFlags(request, FUA) ??
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
        checkFlags(request, FLAGS.BLOCK_STATUS) ??
        checkContexts(request, agreement) ??
        checkEnd(request, agreement)
      );
    default:
      return refusal(nbd.NBD_EINVAL, `request type ${request.type} is not known here`);
  }
}

const FLAGS = {
  FUA: nbd.NBD_CMD_FLAG_FUA,
  READ_STRUCTURED: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_DF,
  WRITE_ZEROES: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO,
  BLOCK_STATUS: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_REQ_ONE,
} as const;

function checkFlags(request: Request, allowed: number): Refusal | undefined {
  if ((request.flags & ~allowed) === 0) return undefined;
  const flags = request.flags.toString(16);
  return refusal(nbd.NBD_EINVAL, `flags 0x${flags} do not go with request type ${request.type}`);
}

function checkWritable({ target }: Agreement): Refusal | undefined {
  if (!target.readOnly) return undefined;
  return refusal(nbd.NBD_EPERM, `'${target.name}' is read-only`);
}

function checkLength({ length }: Request): Refusal | undefined {
  if (length <= nbd.REQUEST_BYTES_MAX) return undefined;
  const message = `${length} bytes in one request, more than ${nbd.REQUEST_BYTES_MAX}`;
  return refusal(nbd.NBD_EINVAL, message);
}

function checkEnd(
  { offset, length }: Request,
  { target }: Agreement,
  errno: number = nbd.NBD_EINVAL,
): Refusal | undefined {
  const { sizeBytes } = target;
  if (offset <= sizeBytes && length <= sizeBytes - offset) return undefined;
  const message = `${length} bytes at ${offset} end beyond '${target.name}' (${sizeBytes} bytes)`;
  return refusal(errno, message);
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
  return refusal(
    nbd.NBD_ENOTSUP,
    'fast zeroes are for whole blocks of 4096 bytes, without NO_HOLE',
  );
}

function checkContexts({ length }: Request, { contexts }: Agreement): Refusal | undefined {
  if (contexts.length === 0) return refusal(nbd.NBD_EINVAL, 'no metadata context was selected');
  return length > 0 ? undefined : refusal(nbd.NBD_EINVAL, 'block status of no bytes');
}

function refusal(errno: number, message: string): Refusal {
  return { errno, message };
}
