/** A seed from the system's randomness: for uuids, serials and nonces. */
import { randomBytes } from 'node:crypto';

export function entropySeed(): number {
  return randomBytes(6).readUIntBE(0, 6);
}
