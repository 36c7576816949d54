/** The offline check of a store that is closed, or was left by a crash. */
import type { CheckReport } from '../store/check/check-report.js';
import { type CheckOptions, checkDevice, checkObjectLog } from '../store/check/checker.js';
import type { StoreSource } from './open-store.js';

/**
 * Checks everything that the last consistency point of the store reaches: pointers, checksums,
 * records, maps, counts and owners; and that the log behind it can be replayed. Nothing is changed,
 * unless `repair` is asked for: then damaged copies of metadata are written again from the sound
 * ones.
 *
 * Nobody may have the store open. The source stays open. What it costs: see store/check/checker.ts.
 *
 * @throws {StoreError} invalid (no store there), unsupported, device (object store)
 */
export function checkStore(source: StoreSource, options: CheckOptions = {}): Promise<CheckReport> {
  if (source.kind === 'device') return checkDevice(source.device, options);
  return checkObjectLog(source.objects, source.prefix, options);
}
