/** Statistics of a store on an object store, for people. */
import { formatBytes } from '../base/units.js';
import type { ObjectStats } from '../control/object-schemas.js';
import { formatCount } from './figures.js';

/** Label and text of each line. */
export function objectFacts(stats: ObjectStats): [string, string][] {
  const { requests, retries, cleaner, orphans } = stats;
  const { put, get, list } = requests;
  const again = retries === 0 ? '' : `; ${retries} sent again`;
  const failed = put.errors + get.errors + list.errors + requests.delete.errors;
  const errors = failed === 0 ? '' : `; ${failed} failed`;
  const moved = cleaner.dataBlocksMoved + cleaner.metaBlocksMoved;
  const emptied = formatCount(cleaner.recordsEmptied, 'record');
  const swept = formatCount(orphans.sweeps, 'sweep');
  return [
    [
      'requests',
      `${put.count} PUT, ${get.count} GET, ${list.count} LIST, ${requests.delete.count} DELETE` +
        again +
        errors,
    ],
    ['bytes', `${formatBytes(put.bytes)} put, ${formatBytes(get.bytes)} got${amplified(stats)}`],
    ['live', liveText(stats)],
    ['cleaner', `${emptied} emptied, ${formatCount(moved, 'block')} moved`],
    ['cache', cacheText(stats)],
    ['orphans', `${formatCount(orphans.deleted, 'object')} deleted in ${swept}`],
    ...costLines(stats),
  ];
}

function amplified({ writeAmplification }: ObjectStats): string {
  if (writeAmplification === null) return '';
  return `; ${writeAmplification.toFixed(2)} bytes put for each that was written`;
}

function liveText({ records, liveRatio, keptBytes }: ObjectStats): string {
  if (liveRatio === null) return 'not counted';
  const percent = (liveRatio * 100).toFixed(0);
  return `${percent} % of ${formatBytes(keptBytes)} in ${formatCount(records, 'record')}`;
}

function cacheText({ cache }: ObjectStats): string {
  const { memoryHits, fileHits, misses, fileBytes, fileBytesMax } = cache;
  const found = `${memoryHits} blocks found in memory, ${fileHits} in the file, ${misses} read`;
  if (fileBytesMax === 0) return `${found}; no file`;
  return `${found}; ${formatBytes(fileBytes)} of ${formatBytes(fileBytesMax)}`;
}

function costLines({ cost }: ObjectStats): [string, string][] {
  if (cost === null) return [];
  const { sinceStart, month } = cost;
  const parts =
    `storage ${money(month.storage)}, requests ${money(month.requests)}, ` +
    `egress ${money(month.egress)}`;
  return [
    ['cost', `${money(sinceStart.total)} since the start`],
    ['a month', `${money(month.total)} at the pace of the last hour: ${parts}`],
  ];
}

/** Four digits that count, at least two behind the point. */
function money(amount: number): string {
  return amount === 0 || amount >= 1 ? amount.toFixed(2) : String(Number(amount.toPrecision(3)));
}
