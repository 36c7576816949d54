/**
 * What a verification of a vdisk came to: the last 192 bytes of its record. Zeros: nobody made one.
 */
import { invariant } from '../base/invariant.js';
import { getU64, putU64, viewOf } from './bytes.js';

/** Where it begins in a vdisk record. */
export const CERTIFICATE_OFFSET = 320;
export const CERTIFICATE_BYTES = 192;
/** Of the name of the former backing store; a longer one is left out. */
export const FORMER_NAME_BYTES_MAX = 80;
const NAME_OFFSET = 112;
const CONTENT_HASH_BYTES = 32;
const HASH_OFFSET = 80;

/** split: at the end of one, before the release. verify: somebody asked for it. */
export type CertificateKind = 'split' | 'verify';
const KINDS: readonly CertificateKind[] = ['split', 'verify'];

/** What a walk looked at. */
export interface CertificateCounts {
  /** Pointers to blocks, direct and indirect. */
  readonly blocks: number;
  /** Blocks that a split put there: of its own, the backing store's own, and zeros. */
  readonly filledCopies: number;
  readonly filledShares: number;
  readonly filledZeros: number;
  /** Of these, the ones that were compared with what the backing store has there. */
  readonly compared: number;
  /** Not comparable: cut by a read-through limit, or outside of the store. */
  readonly excepted: number;
}

export interface CertificateRecord extends CertificateCounts {
  readonly kind: CertificateKind;
  /** Findings that refute it; 0: it is proven. */
  readonly refutations: number;
  readonly wallMs: number;
  /** Consistency point that it speaks of. */
  readonly cpNumber: number;
  /** Tree that a split filled from; 0: none is known. */
  readonly formerTreeId: number;
  /** Its name when it was let go; '' if it had none, or too long a one. */
  readonly formerName: string;
  /** SHA-256 of the content, if that was compared. */
  readonly contentHash: Uint8Array | undefined;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const NUMBERS = [
  'wallMs',
  'cpNumber',
  'formerTreeId',
  'blocks',
  'filledCopies',
  'filledShares',
  'filledZeros',
  'compared',
  'excepted',
] as const;

/** Writes it into its 192 bytes, which are zero. */
export function encodeCertificate(record: CertificateRecord, bytes: Uint8Array): void {
  const view = viewOf(bytes);
  const name = encoder.encode(record.formerName);
  invariant(name.length <= FORMER_NAME_BYTES_MAX, 'the name in a certificate fits, or is left out');
  bytes[0] = KINDS.indexOf(record.kind) + 1;
  bytes[1] = record.contentHash === undefined ? 0 : 1;
  view.setUint16(2, name.length, true);
  view.setUint32(4, record.refutations, true);
  for (const [index, key] of NUMBERS.entries()) putU64(view, 8 + index * 8, record[key]);
  if (record.contentHash !== undefined) bytes.set(record.contentHash, HASH_OFFSET);
  bytes.set(name, NAME_OFFSET);
}

/** The certificate, 'none', or undefined if the bytes cannot be one. */
export function decodeCertificate(bytes: Uint8Array): CertificateRecord | 'none' | undefined {
  const view = viewOf(bytes);
  if (bytes[0] === 0) return 'none';
  const kind = KINDS[(bytes[0] as number) - 1];
  const hasHash = bytes[1] as number;
  const nameBytes = view.getUint16(2, true);
  if (kind === undefined || hasHash > 1 || nameBytes > FORMER_NAME_BYTES_MAX) return undefined;
  const numbers = NUMBERS.map((_key, index) => getU64(view, 8 + index * 8));
  if (numbers.some(Number.isNaN)) return undefined;
  const at = (key: (typeof NUMBERS)[number]): number => numbers[NUMBERS.indexOf(key)] as number;
  let formerName: string;
  try {
    formerName = decoder.decode(bytes.subarray(NAME_OFFSET, NAME_OFFSET + nameBytes));
  } catch {
    return undefined;
  }
  return {
    kind,
    refutations: view.getUint32(4, true),
    wallMs: at('wallMs'),
    cpNumber: at('cpNumber'),
    formerTreeId: at('formerTreeId'),
    formerName,
    blocks: at('blocks'),
    filledCopies: at('filledCopies'),
    filledShares: at('filledShares'),
    filledZeros: at('filledZeros'),
    compared: at('compared'),
    excepted: at('excepted'),
    contentHash:
      hasHash === 0 ? undefined : bytes.slice(HASH_OFFSET, HASH_OFFSET + CONTENT_HASH_BYTES),
  };
}

/** The name as a certificate keeps it. */
export function toFormerName(name: string): string {
  return encoder.encode(name).length <= FORMER_NAME_BYTES_MAX ? name : '';
}
