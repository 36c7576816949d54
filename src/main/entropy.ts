/** The system's randomness: a seed for uuids, serials and nonces, and tokens. */
import { randomBytes } from 'node:crypto';

export function entropySeed(): number {
  return randomBytes(6).readUIntBE(0, 6);
}

/** 256 bits that nobody guesses, as 43 characters. */
export function randomToken(): string {
  return randomBytes(32).toString('base64url');
}
