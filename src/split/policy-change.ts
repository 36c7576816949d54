/** A policy as somebody asks for it: what is not given stays as it is. */
import { StoreError } from '../base/store-error.js';
import { KIB } from '../base/units.js';
import {
  MINUTES_OF_DAY,
  RATE_BYTES_MAX,
  type SplitPace,
  type SplitPolicy,
  type SplitWindow,
} from '../layout/split-policy.js';

export interface PolicyChange {
  readonly pace?: SplitPace;
  /** Of pace `rate`, and only of that. Rounded up to whole KiB. */
  readonly rateBytesPerSecond?: number;
  /** 0: none, busy clients can hold a balanced or idle split for ever. */
  readonly floorBytesPerSecond?: number;
  /** `always` takes a window away. */
  readonly window?: SplitWindow | 'always';
  readonly isReserved?: boolean;
}

/** @throws {StoreError} invalid */
export function changePolicy(policy: SplitPolicy, change: PolicyChange): SplitPolicy {
  const pace = change.pace ?? (change.rateBytesPerSecond === undefined ? policy.pace : 'rate');
  const rate = change.rateBytesPerSecond ?? policy.rateBytesPerSecond;
  if (pace === 'rate' && !(rate > 0)) {
    throw new StoreError('invalid', 'a split of pace rate needs a rate of more than 0 bytes/s');
  }
  if (pace !== 'rate' && change.rateBytesPerSecond !== undefined) {
    throw new StoreError('invalid', `a split of pace ${pace} takes no rate`);
  }
  const window = change.window ?? policy.window;
  return {
    pace,
    rateBytesPerSecond: pace === 'rate' ? toRate(rate) : 0,
    floorBytesPerSecond: toRate(change.floorBytesPerSecond ?? policy.floorBytesPerSecond),
    window: window === 'always' ? undefined : toWindow(window),
    isReserved: change.isReserved ?? policy.isReserved,
  };
}

function toRate(bytesPerSecond: number): number {
  if (!(bytesPerSecond >= 0 && bytesPerSecond <= RATE_BYTES_MAX)) {
    throw new StoreError('invalid', `${bytesPerSecond} bytes/s is no rate: 0 to ${RATE_BYTES_MAX}`);
  }
  return Math.ceil(bytesPerSecond / KIB) * KIB;
}

function toWindow(window: SplitWindow | undefined): SplitWindow | undefined {
  if (window === undefined) return undefined;
  const { fromMinute, toMinute } = window;
  if (isMinute(fromMinute) && isMinute(toMinute) && fromMinute !== toMinute) {
    return { fromMinute, toMinute };
  }
  throw new StoreError(
    'invalid',
    `a window has two different minutes of the day, 0 to ${MINUTES_OF_DAY - 1}: ` +
      `${fromMinute} to ${toMinute} is none`,
  );
}

function isMinute(minute: number): boolean {
  return Number.isInteger(minute) && minute >= 0 && minute < MINUTES_OF_DAY;
}
