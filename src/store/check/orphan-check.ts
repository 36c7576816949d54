/**
 * Object log: objects that nothing names (object-log/orphans.ts). They are no fault: a crash leaves
 * some behind, and a server that has the store open deletes them.
 *
 * Each is read whole, for its size, and because a SEAL is none.
 */
import { decodeRecord } from '../../layout/log-record.js';
import { decodeRecordList } from '../../layout/publication.js';
import { USAGE_ENTRIES_PER_BLOCK, usageLive } from '../../layout/usage-entry.js';
import { getPatiently, listAll } from '../object-log/chain-walk.js';
import { findSuspects, type Suspect } from '../object-log/orphans.js';
import { PinnedRecords } from '../object-log/published/pinned-records.js';
import type { StorePrefix } from '../object-log/published/publication-objects.js';
import type { Findings } from './check-report.js';
import type { FileBlocks } from './map-check.js';
import type { ObjectLogCheckMedium } from './object-log-check-medium.js';
import type { TreeWalker } from './tree-walk.js';

export async function countOrphans(
  medium: ObjectLogCheckMedium,
  walker: TreeWalker,
  findings: Findings,
  usage: FileBlocks,
): Promise<void> {
  const { where, epoch, fsinfo } = medium;
  const pins = await findPins(where, fsinfo.uuid);
  for await (const suspect of findSuspects(where, { epoch, replayFrom: fsinfo.replayFrom })) {
    if (suspect.kind === 'record') {
      const { number } = suspect;
      if (pins.has(number) || isInUse(number, walker, usage)) continue;
    }
    const object = await getPatiently(where.objects, suspect.key);
    if (object === undefined || !mayGo(suspect, object, fsinfo.uuid)) continue;
    findings.addOrphan(suspect.key, object.length);
  }
}

/** Records that other stores read. A list that cannot be read may name any. */
async function findPins(where: StorePrefix, uuid: Uint8Array): Promise<PinnedRecords> {
  const pins = new PinnedRecords();
  const keys = await listAll(where.objects, `${where.prefix}/pub/`);
  for (const [index, key] of keys.entries()) {
    if (!key.endsWith('/records')) continue;
    const bytes = await getPatiently(where.objects, key);
    if (bytes !== undefined) pins.add(index, decodeRecordList(uuid, bytes) ?? 'all');
  }
  return pins;
}

function isInUse(number: number, walker: TreeWalker, usage: FileBlocks): boolean {
  const words = usage.get(Math.floor(number / USAGE_ENTRIES_PER_BLOCK));
  const live = usageLive(words?.[(number % USAGE_ENTRIES_PER_BLOCK) * 2] ?? 0);
  const isNamed =
    walker.data.bitsOf(number) !== undefined || walker.meta.bitsOf(number) !== undefined;
  return live > 0 || isNamed;
}

function mayGo(suspect: Suspect, object: Uint8Array, uuid: Uint8Array): boolean {
  if (suspect.kind !== 'record') return true;
  const record = decodeRecord(object, uuid);
  return record !== undefined && record.kind !== 'seal';
}
