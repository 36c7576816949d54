/** What is counted of a store on an object store, put together for API and metrics. */
import { BLOCK_BYTES } from '../base/units.js';
import type { ObjectCounters, ObjectMeter } from './control-plane.js';
import type { StoreCounters } from './control-store.js';
import { costOf, costOfMonth } from './costs.js';
import type { ObjectStats } from './object-schemas.js';

/** Undefined: the store is on a device. */
export function objectStatsOf(
  store: StoreCounters,
  counters: ObjectCounters | undefined,
): ObjectStats | undefined {
  const { cleaner, cache, sweep } = store;
  if (counters === undefined || cleaner === undefined || cache === undefined) return undefined;
  const { meters, retries } = counters;
  const keptBytes = cleaner.keptBlocks * BLOCK_BYTES;
  const placedBytes = store.dataBytesPlaced ?? 0;
  return {
    requests: {
      put: verbOf(meters.put),
      get: verbOf(meters.get),
      delete: verbOf(meters.delete),
      list: verbOf(meters.list),
    },
    unknownPuts: meters.put.unknown,
    retries: retries(),
    records: cleaner.records,
    liveBytes: cleaner.liveBlocks * BLOCK_BYTES,
    keptBytes,
    liveRatio: ratioOf(cleaner.liveBlocks, cleaner.keptBlocks),
    placedBytes,
    writeAmplification: ratioOf(meters.put.bytes, placedBytes),
    cleaner: {
      passes: cleaner.passes,
      recordsEmptied: cleaner.recordsEmptied,
      recordsLeft: cleaner.recordsLeft,
      dataBlocksMoved: cleaner.dataBlocksMoved,
      metaBlocksMoved: cleaner.metaBlocksMoved,
      bytesRead: cleaner.bytesRead,
    },
    cache: {
      memoryHits: cache.memoryHits,
      fileHits: cache.fileHits,
      misses: cache.misses,
      memoryBytes: cache.memoryBytes,
      fileBytes: cache.file?.bytes ?? 0,
      fileBytesMax: cache.file?.bytesMax ?? 0,
      damaged: cache.file?.damaged ?? 0,
    },
    orphans: { sweeps: sweep?.sweeps ?? 0, deleted: sweep?.orphansDeleted ?? 0 },
    // Where the cleaner is off nobody counts records: what is live is the least there can be.
    cost: costs(counters, Math.max(keptBytes, store.usedBytes)) ?? null,
  };
}

function costs({ prices, spent }: ObjectCounters, keptBytes: number) {
  if (prices === undefined) return undefined;
  const { sinceStart, lastHour } = spent();
  return {
    sinceStart: costOf({ ...sinceStart, keptBytes }, prices),
    month: costOfMonth({ ...lastHour, keptBytes }, prices),
  };
}

function verbOf({ times, errors, bytes }: ObjectMeter) {
  return { count: times.count, errors, bytes };
}

function ratioOf(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}
