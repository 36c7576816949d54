/** What people write on a command line: names and sizes, checked before anything is asked. Pure. */
import { resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { parseSize } from '../base/size-text.js';
import { SECTOR_BYTES, VDISK_BYTES_MAX } from '../base/units.js';

const NAME = '[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,254}';
export const VDISK_NAME = new RegExp(`^${NAME}$`);
export const SNAPSHOT_NAME = new RegExp(`^${NAME}@${NAME}$`);
export const ANY_NAME = new RegExp(`^${NAME}(@${NAME})?$`);

const NAME_RULE =
  'a name has 1 to 255 of A-Z a-z 0-9 _ . : + -, and begins with a letter, digit or _';

export function toVdiskName(text: string): string {
  if (VDISK_NAME.test(text)) return text;
  const isSnapshot = SNAPSHOT_NAME.test(text);
  throw new InvalidArgumentError(isSnapshot ? 'A vdisk is meant, not a snapshot.' : NAME_RULE);
}

export function toAnyName(text: string): string {
  if (ANY_NAME.test(text)) return text;
  throw new InvalidArgumentError(NAME_RULE);
}

export function toSnapshotName(text: string): string {
  if (SNAPSHOT_NAME.test(text)) return text;
  throw new InvalidArgumentError(`A snapshot is meant: vdisk@snapshot; ${NAME_RULE}.`);
}

/** What to clone: a name of this store, or STORE#VDISK@SNAP of another. */
export function toCloneSource(text: string): string {
  const at = text.indexOf('#');
  if (at < 0) return toAnyName(text);
  if (at === 0 || !SNAPSHOT_NAME.test(text.slice(at + 1))) {
    const shape = 'STORE#VDISK@SNAP, as s3://bucket/prefix#golden@v1';
    throw new InvalidArgumentError(`What another store has published is ${shape}.`);
  }
  // The server has another working directory.
  return text.startsWith('dir:') ? `dir:${resolve(text.slice(4, at))}${text.slice(at)}` : text;
}

/** The size of a vdisk. */
export function toSizeBytes(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) {
    throw new InvalidArgumentError(
      'A size is a number with K, M, G, T or P: 512, 20G, 1.5T, 64MiB.',
    );
  }
  if (bytes > 0 && bytes % SECTOR_BYTES === 0 && bytes <= VDISK_BYTES_MAX) return bytes;
  throw new InvalidArgumentError('A vdisk has a multiple of 512 bytes, and up to 1 PiB.');
}

const RATE_RULE = 'A rate is a size a second: 50M, 1G, 0 for none.';

/** Bytes a second. */
export function toRateBytes(text: string): number {
  const bytes = text === '0' ? 0 : parseSize(text);
  if (bytes === undefined) throw new InvalidArgumentError(RATE_RULE);
  return bytes;
}

export interface PaceWords {
  readonly pace: 'balanced' | 'idle' | 'now' | 'rate';
  readonly rateBytesPerSecond?: number;
}

/** `balanced`, `idle`, `now` or `rate=50M`. */
export function toPace(text: string): PaceWords {
  if (text === 'balanced' || text === 'idle' || text === 'now') return { pace: text };
  const rate = /^rate=(.+)$/.exec(text)?.[1];
  if (rate !== undefined) return { pace: 'rate', rateBytesPerSecond: toRateBytes(rate) };
  throw new InvalidArgumentError('A pace is balanced, idle, now or rate=SIZE: rate=50M.');
}

const TIME = '([01][0-9]|2[0-3]):[0-5][0-9]';
const WINDOW = new RegExp(`^(always|${TIME}-${TIME})$`);

export function toWindowText(text: string): string {
  if (WINDOW.test(text)) return text;
  throw new InvalidArgumentError('A window is HH:MM-HH:MM, UTC (22:00-06:00), or always.');
}
