/**
 * The vdisk record: 512 bytes, eight to a block of the vdisk file. Snapshots have one too, and so
 * have external backing stores.
 */
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';
import {
  CERTIFICATE_OFFSET,
  type CertificateRecord,
  decodeCertificate,
  encodeCertificate,
} from './certificate-record.js';

export const VDISK_RECORD_BYTES = 512;
export const VDISK_RECORDS_PER_BLOCK = BLOCK_BYTES / VDISK_RECORD_BYTES;
export const NAME_BYTES_MAX = 255;

/** external: a disk that stands in files outside of the store, and is only read. */
export type VdiskKind = 'vdisk' | 'snapshot' | 'external';
const KINDS: readonly VdiskKind[] = ['vdisk', 'snapshot', 'external'];

export interface VdiskRecord {
  readonly id: number;
  readonly kind: VdiskKind;
  /** In a log entry only: the record is to be removed. */
  readonly gone: boolean;
  /** Snapshot: the part after the @. */
  readonly name: string;
  readonly headTreeId: number;
  /** Snapshot: record of the vdisk whose past it is; else 0. */
  readonly ofVdiskId: number;
  readonly serial: Uint8Array;
  readonly createdCp: number;
  readonly createdWallMs: number;
  /** What its last verification came to. */
  readonly certificate: CertificateRecord | undefined;
  /** Snapshot: id under which it is published; 0: it is not. */
  readonly publication: number;
}

const encoder = new TextEncoder();
/** A byte order mark at the front is part of the name. */
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function encodeVdiskRecord(record: VdiskRecord, bytes: Uint8Array): void {
  bytes.fill(0);
  const view = viewOf(bytes);
  const name = encoder.encode(record.name);
  invariant(record.id > 0, 'a vdisk record has an id');
  invariant(name.length > 0 && name.length <= NAME_BYTES_MAX, 'a name has 1 to 255 bytes');
  putU64(view, 0, record.id);
  bytes[8] = KINDS.indexOf(record.kind) + 1;
  bytes[9] = record.gone ? 2 : 1;
  view.setUint16(10, name.length, true);
  view.setUint32(12, record.publication, true);
  putU64(view, 16, record.headTreeId);
  putU64(view, 24, record.ofVdiskId);
  bytes.set(record.serial, 32);
  putU64(view, 48, record.createdCp);
  putU64(view, 56, record.createdWallMs);
  bytes.set(name, 64);
  const { certificate } = record;
  if (certificate !== undefined) encodeCertificate(certificate, bytes.subarray(CERTIFICATE_OFFSET));
}

/** The record, 'free' for an empty slot, or undefined if the bytes cannot be one. */
export function decodeVdiskRecord(bytes: Uint8Array): VdiskRecord | 'free' | undefined {
  if (bytes.length !== VDISK_RECORD_BYTES) return undefined;
  const view = viewOf(bytes);
  const id = getU64(view, 0);
  if (id === 0) return 'free';
  const kind = KINDS[(bytes[8] as number) - 1];
  const state = bytes[9];
  const nameBytes = view.getUint16(10, true);
  if (kind === undefined || (state !== 1 && state !== 2)) return undefined;
  if (nameBytes === 0 || nameBytes > NAME_BYTES_MAX) return undefined;
  const numbers = [16, 24, 48, 56].map((offset) => getU64(view, offset));
  if (Number.isNaN(id) || numbers.some(Number.isNaN)) return undefined;
  let name: string;
  try {
    name = decoder.decode(bytes.subarray(64, 64 + nameBytes));
  } catch {
    return undefined;
  }
  const certificate = decodeCertificate(bytes.subarray(CERTIFICATE_OFFSET));
  if (certificate === undefined) return undefined;
  return {
    id,
    kind,
    gone: state === 2,
    name,
    headTreeId: numbers[0] as number,
    ofVdiskId: numbers[1] as number,
    serial: bytes.slice(32, 48),
    createdCp: numbers[2] as number,
    createdWallMs: numbers[3] as number,
    certificate: certificate === 'none' ? undefined : certificate,
    publication: view.getUint32(12, true),
  };
}
