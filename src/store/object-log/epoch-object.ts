/**
 * The object that begins an epoch: where its chain begins, and who owns it. docs/FORMAT.md §14.
 *
 * 1. It is created once and never deleted: of all who want epoch e, one gets it, for ever.
 * 2. No two texts are alike: an owner who was not answered knows its own by the nonce.
 */
import { crc32 } from '../../base/checksum.js';
import { StoreError } from '../../base/store-error.js';
import { toHex } from '../../layout/bytes.js';

/** The process that claimed an epoch. Safety does not depend on what it says. */
export interface OwnerToken {
  /** Where processes can be told apart by `program`: a boot of a machine, a container. */
  readonly machine: string;
  readonly program: string;
  /** For people. */
  readonly label: string;
}

export interface EpochBody {
  /** The CP record that the epoch starts from. */
  readonly base: number;
  readonly first: number;
  readonly sealed: number;
  /** Undefined: whoever claimed it did not say. */
  readonly owner?: OwnerToken | undefined;
  /** Undefined: it did not say. */
  readonly staleReads?: StaleReads | undefined;
}

/** How late an answer to a read may be, in milliseconds. */
export interface StaleReads {
  /** Of the owner itself. */
  readonly ownMs: number;
  /** That, or a longer one of those before it, for which it waits before its first CP. */
  readonly dueMs: number;
}

const NUMBERS = /^base (\d+)\nfirst (\d+)\nsealed (\d+)\n/;
const STALE_READS = /\nstale (\d+) (\d+)\n/;
const OWNER = /\nowner (\S+) (\S+) (\S+)\n/;
/** Of the first version, without owner and check. */
const BARE = /^base \d+\nfirst \d+\nsealed \d+\n$/;
const CHECK = /check ([0-9a-f]{8})\n$/;

export function epochText(body: EpochBody, nonce: Uint8Array): string {
  const { base, first, sealed, owner, staleReads } = body;
  const words =
    owner === undefined ? ['-', '-', '-'] : [owner.machine, owner.program, owner.label].map(toWord);
  const stale =
    staleReads === undefined
      ? ''
      : `stale ${[staleReads.ownMs, staleReads.dueMs].map(Math.ceil).join(' ')}\n`;
  const text =
    `base ${base}\nfirst ${first}\nsealed ${sealed}\n` +
    `owner ${words.join(' ')}\n${stale}nonce ${toHex(nonce)}\n`;
  return `${text}check ${checkOf(text)}\n`;
}

/** @throws {StoreError} corrupt */
export function parseEpoch(text: string, name: string): EpochBody {
  const numbers = NUMBERS.exec(text);
  const check = CHECK.exec(text);
  const isWhole =
    check === null ? BARE.test(text) : checkOf(text.slice(0, check.index)) === check[1];
  if (numbers === null || !isWhole) {
    throw new StoreError('corrupt', `${name} is damaged: ${JSON.stringify(text.slice(0, 200))}`);
  }
  const [, base, first, sealed] = numbers.map(Number) as [number, number, number, number];
  const [ownMs, dueMs] = STALE_READS.exec(text)?.slice(1).map(Number) ?? [];
  const body = {
    base,
    first,
    sealed,
    ...(ownMs === undefined || dueMs === undefined ? {} : { staleReads: { ownMs, dueMs } }),
  };
  const words = OWNER.exec(text)?.slice(1) ?? ['-'];
  if (words[0] === '-') return body;
  const [machine = '', program = '', label = ''] = words.map(decodeURIComponent);
  return { ...body, owner: { machine, program, label } };
}

function toWord(text: string): string {
  return encodeURIComponent(text) || '%20';
}

function checkOf(text: string): string {
  return crc32(new TextEncoder().encode(text)).toString(16).padStart(8, '0');
}
