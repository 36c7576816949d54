/** What a client is told of an operating error: no space as no space, never as an I/O error. */
import type { StoreErrorKind } from '../../base/store-error.js';
import { NBD_EINVAL, NBD_EIO, NBD_ENOSPC, NBD_EPERM, NBD_ESHUTDOWN } from './protocol.js';

export const ERRNO_OF_KIND = {
  'out-of-space': NBD_ENOSPC,
  corrupt: NBD_EIO,
  device: NBD_EIO,
  'read-only': NBD_EPERM,
  // Deleted under the client: like closed, the client should go.
  'not-found': NBD_ESHUTDOWN,
  exists: NBD_EINVAL,
  'in-use': NBD_EPERM,
  invalid: NBD_EINVAL,
  // The document keeps ENOTSUP for fast zeroes alone.
  unsupported: NBD_EINVAL,
  fenced: NBD_ESHUTDOWN,
  closed: NBD_ESHUTDOWN,
} as const satisfies Record<StoreErrorKind, number>;
