/** Policies of splits as the API writes them. */
import type { SplitWindow } from '../layout/split-policy.js';
import type { PolicyChange } from '../split/policy-change.js';
import type { SplitState } from '../split/split-job.js';
import type { PolicyOptions, Vdisk } from './schemas.js';

export function toPolicyChange(options: PolicyOptions): PolicyChange {
  const { window, ...same } = options;
  if (window === undefined) return same;
  return { ...same, window: window === 'always' ? window : toWindow(window) };
}

/** Of `HH:MM-HH:MM`, which the schema has checked. */
function toWindow(text: string): SplitWindow {
  const [from, to] = text.split('-').map((time) => {
    const [hour, minute] = time.split(':').map(Number);
    return (hour ?? 0) * 60 + (minute ?? 0);
  });
  return { fromMinute: from ?? 0, toMinute: to ?? 0 };
}

function toText({ fromMinute, toMinute }: SplitWindow): string {
  return [fromMinute, toMinute]
    .map((minutes) => {
      const [hour, minute] = [Math.floor(minutes / 60), minutes % 60];
      return `${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}`;
    })
    .join('-');
}

export function toSplit(split: SplitState, jobId: string | undefined): Vdisk['split'] {
  const { pace, rateBytesPerSecond, floorBytesPerSecond, window, isReserved } = split.policy;
  return {
    jobId: jobId ?? null,
    mode: split.mode,
    state: split.state,
    reason: split.reason ?? null,
    policy: {
      pace,
      rateBytesPerSecond: pace === 'rate' ? rateBytesPerSecond : null,
      floorBytesPerSecond,
      window: window === undefined ? null : toText(window),
      isReserved,
    },
    limitedBy: split.limitedBy,
    rateBytesPerSecond: split.rateBytesPerSecond ?? null,
    positionBytes: split.positionBytes,
    endBytes: split.endBytes,
    filledBytes: split.filledBytes,
    reservedBytes: split.reservedBytes,
    badRanges: split.badRanges.map(({ offset, length }) => ({ offset, length })),
  };
}
