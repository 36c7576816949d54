/** Plans of splits for clients of the API. */
import type { SplitMode } from '../layout/tree-record.js';
import type { ControlStore } from './control-store.js';
import { isOwnName } from './exports.js';
import { ApiError } from './problem.js';
import type { SplitPlan } from './schemas.js';

interface Question {
  readonly mode?: SplitMode;
  readonly estimate?: 'true';
}

/** @throws {ApiError} cancelled: nobody waits for it any more */
export async function planSplit(
  store: ControlStore,
  name: string,
  { mode, estimate }: Question,
  signal: AbortSignal,
): Promise<SplitPlan> {
  const options = { mode, estimate: estimate === 'true', signal };
  try {
    const { backing, otherHolders, modes, ...plan } = await store.planSplit(name, options);
    return {
      ...plan,
      backing: backing === '' ? null : backing,
      otherHolders: otherHolders.filter((holder) => !isOwnName(holder)),
      modes: modes.map(({ bytesPerSecond, ...each }) => ({
        ...each,
        givesBackBytes: each.givesBackBytes ?? null,
        vdiskGivesBackBytes: each.vdiskGivesBackBytes ?? null,
        rateBytesPerSecond: bytesPerSecond ?? null,
        seconds: each.seconds ?? null,
      })),
    };
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new ApiError('cancelled', `the plan for ${name} was cancelled: its client is gone`);
  }
}
