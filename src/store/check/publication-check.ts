/**
 * Published snapshots: each that a record speaks of has a manifest and a list of records that can
 * be read, all of these records are there, and fsinfo says that something is published.
 */
import { hasPublished } from '../../layout/fsinfo.js';
import { decodeRecordList } from '../../layout/publication.js';
import { getPatiently, listAll } from '../object-log/chain-walk.js';
import {
  idText,
  listPublished,
  type PublicationObject,
  readManifest,
  type StorePrefix,
} from '../object-log/published/publication-objects.js';
import { recordKey } from '../object-log/record-chain.js';
import type { Findings } from './check-report.js';
import type { ObjectLogCheckMedium } from './object-log-check-medium.js';
import type { StoreRecords } from './record-check.js';

/** Missing records that are named. */
const NAMED_MAX = 10;

export async function checkPublications(
  medium: ObjectLogCheckMedium,
  records: StoreRecords,
  findings: Findings,
): Promise<void> {
  const published = [...records.vdisks.values()].filter(({ publication }) => publication !== 0);
  if (published.length === 0) return;
  const { where, fsinfo } = medium;
  if (!hasPublished(fsinfo)) {
    findings.add('vdisk-record', `fsinfo of ${medium.name} does not announce what is published`);
  }
  const objects = await listPublished(where);
  const there = new Set(await listAll(where.objects, `${where.prefix}/log/`));
  for (const record of published) {
    const id = record.publication;
    const what = `publication ${idText(id)} of ${records.nameOfVdisk(record)}`;
    const fault = await faultOf(
      where,
      fsinfo.uuid,
      objects.filter((each) => each.id === id),
      there,
    );
    if (fault !== undefined) findings.add('record', `${what}: ${fault}`);
  }
}

async function faultOf(
  where: StorePrefix,
  uuid: Uint8Array,
  objects: readonly PublicationObject[],
  there: ReadonlySet<string>,
): Promise<string | undefined> {
  const list = objects.find(({ part }) => part === 'records');
  if (list === undefined) return 'its list of records is missing';
  try {
    await readManifest(where, list);
  } catch (error) {
    return String(error);
  }
  const bytes = await getPatiently(where.objects, list.key);
  const runs = bytes === undefined ? undefined : decodeRecordList(uuid, bytes);
  if (runs === undefined) return 'its list of records is damaged';
  const missing: number[] = [];
  for (const { first, count } of runs) {
    for (let record = first; record < first + count; record++) {
      if (!there.has(recordKey(where.prefix, record))) missing.push(record);
    }
  }
  if (missing.length === 0) return undefined;
  const more = missing.length > NAMED_MAX ? ', …' : '';
  return `of its records ${missing.slice(0, NAMED_MAX).join(', ')}${more} are missing`;
}
