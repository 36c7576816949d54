/** What the server counts, as the API shows it. */
import { toIsoTime } from '../env/wall-time.js';
import type { ControlPlane } from './control-plane.js';
import type { OperationMeter } from './metered-target.js';
import { objectStatsOf } from './object-stats.js';
import { OPERATION_NAMES, type OperationName, type Stats } from './schemas.js';

export function statsOf(plane: ControlPlane): Stats {
  const { store, exports, options, clock } = plane;
  const counters = store.stats();
  return {
    at: toIsoTime(clock.wallMs()),
    store: {
      totalBytes: counters.totalBytes,
      usedBytes: counters.usedBytes,
      freeBytes: counters.freeBytes,
      memoryBytes: counters.memoryBytes,
      dirtyBuffers: counters.dirtyBuffers,
      blocksRead: counters.blocksRead,
      blocksHealed: counters.blocksHealed,
      cpNumber: counters.cpNumber,
      cpCount: counters.cpCount,
      cpBlocksWritten: counters.cpBlocksWritten,
      cpMs: counters.cpMs,
      cpInProgress: counters.cpInProgress,
      logGroups: counters.logGroups,
      background: counters.background ?? null,
      splitsActive: counters.splitsActive,
      splitsCompleted: counters.splitsCompleted,
      splitBlocksFilled: counters.splitBlocksFilled,
      splitBackingBlocksRead: counters.splitBackingBlocksRead,
      localLog: counters.localLog ?? null,
    },
    objects: objectStatsOf(counters, options.objectCounters) ?? null,
    nbd: { connections: exports.clientCount, heldBytes: options.memory.budget.usedBytes },
    vdisks: exports.meters().map(([name, meter]) => ({
      name,
      operations: OPERATION_NAMES.filter((operation) => meter[operation].times.count > 0).map(
        (operation) => operationStats(operation, meter[operation]),
      ),
    })),
  };
}

function operationStats(operation: OperationName, { times, errors, bytes }: OperationMeter) {
  return {
    operation,
    count: times.count,
    errors,
    bytes,
    seconds: times.sumMs / 1000,
    p50Ms: times.quantileMs(0.5) ?? null,
    p99Ms: times.quantileMs(0.99) ?? null,
  };
}
