/** How fast a split may go: 16 bytes of the tree record that is being split. */
import { invariant } from '../base/invariant.js';
import { KIB, MIB } from '../base/units.js';

/**
 * balanced: as fast as the clients' own latency allows. idle: while no client asks for anything.
 * now: as fast as it can. rate: a bound in bytes a second.
 */
export type SplitPace = 'balanced' | 'idle' | 'now' | 'rate';
const PACES: readonly SplitPace[] = ['balanced', 'idle', 'now', 'rate'];

/** Time of day, UTC; it may pass midnight. */
export interface SplitWindow {
  /** Minutes since midnight: 0 to 1439, and not the same. */
  readonly fromMinute: number;
  readonly toMinute: number;
}

export interface SplitPolicy {
  readonly pace: SplitPace;
  /** Of pace `rate`; else 0. A multiple of 1 KiB. */
  readonly rateBytesPerSecond: number;
  /** balanced and idle are never slower, however busy clients are. A multiple of 1 KiB. */
  readonly floorBytesPerSecond: number;
  /** It works within this time of day only, whatever its floor. */
  readonly window: SplitWindow | undefined;
  /** Space for all of it is set aside before the first fill. */
  readonly isReserved: boolean;
}

const FLOOR_BYTES_PER_SECOND = MIB;
/** What the two rates can be, at most: 4 TiB a second. */
export const RATE_BYTES_MAX = (0xffff_ffff - 1) * KIB;
export const MINUTES_OF_DAY = 1440;

export const DEFAULT_POLICY: SplitPolicy = {
  pace: 'balanced',
  rateBytesPerSecond: 0,
  floorBytesPerSecond: FLOOR_BYTES_PER_SECOND,
  window: undefined,
  isReserved: true,
};

const FLAG_WINDOW = 1;
const FLAG_UNRESERVED = 2;

/** Of a record of 256 zeroed bytes. All zeros is the default: a record from before it has it. */
export function encodeSplitPolicy(policy: SplitPolicy, bytes: Uint8Array, view: DataView): void {
  invariant(isPossible(policy), 'a policy says what can be');
  const { pace, rateBytesPerSecond, floorBytesPerSecond, window, isReserved } = policy;
  bytes[13] = PACES.indexOf(pace);
  bytes[14] = (window === undefined ? 0 : FLAG_WINDOW) | (isReserved ? 0 : FLAG_UNRESERVED);
  view.setUint32(108, rateBytesPerSecond / KIB, true);
  const isDefault = floorBytesPerSecond === FLOOR_BYTES_PER_SECOND;
  view.setUint32(112, isDefault ? 0 : floorBytesPerSecond / KIB + 1, true);
  view.setUint16(116, window?.fromMinute ?? 0, true);
  view.setUint16(118, window?.toMinute ?? 0, true);
}

/** Undefined if the bytes cannot be a policy. */
export function decodeSplitPolicy(bytes: Uint8Array, view: DataView): SplitPolicy | undefined {
  const pace = PACES[bytes[13] as number];
  const flags = bytes[14] as number;
  const floor = view.getUint32(112, true);
  if (pace === undefined || flags > (FLAG_WINDOW | FLAG_UNRESERVED)) return undefined;
  const window = { fromMinute: view.getUint16(116, true), toMinute: view.getUint16(118, true) };
  const policy: SplitPolicy = {
    pace,
    rateBytesPerSecond: view.getUint32(108, true) * KIB,
    floorBytesPerSecond: floor === 0 ? FLOOR_BYTES_PER_SECOND : (floor - 1) * KIB,
    window: (flags & FLAG_WINDOW) === 0 ? undefined : window,
    isReserved: (flags & FLAG_UNRESERVED) === 0,
  };
  return isPossible(policy) ? policy : undefined;
}

function isPossible({ pace, rateBytesPerSecond, floorBytesPerSecond, window }: SplitPolicy) {
  if ((pace === 'rate') !== rateBytesPerSecond > 0) return false;
  if (!isRate(rateBytesPerSecond) || !isRate(floorBytesPerSecond)) return false;
  if (window === undefined) return true;
  const { fromMinute, toMinute } = window;
  return isMinute(fromMinute) && isMinute(toMinute) && fromMinute !== toMinute;
}

function isRate(bytes: number): boolean {
  return bytes >= 0 && bytes <= RATE_BYTES_MAX && bytes % KIB === 0;
}

function isMinute(minute: number): boolean {
  return Number.isInteger(minute) && minute >= 0 && minute < MINUTES_OF_DAY;
}
