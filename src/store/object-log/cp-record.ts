/** The record of a consistency point, and the object that says where it stands. */
import { crc32 } from '../../base/checksum.js';
import { StoreError } from '../../base/store-error.js';
import type { ObjectStore } from '../../env/object-store.js';
import { encodeFsinfo, type Fsinfo } from '../../layout/fsinfo.js';
import { numberKey, putText } from './chain-walk.js';
import type { RecordChain } from './record-chain.js';

export interface CpPlace {
  readonly objects: ObjectStore;
  readonly prefix: string;
  readonly chain: RecordChain;
}

/** Resolves when the record and all before it are acknowledged, and it is indexed. */
export async function putCpRecord(
  { objects, prefix, chain }: CpPlace,
  fsinfo: Fsinfo,
): Promise<{ readonly record: number; readonly indexKey: string }> {
  const record = chain.open();
  const block = encodeFsinfo(fsinfo);
  const tag = { treeId: 0, fbn: 0, level: 0, crc: crc32(block), kind: 'meta' } as const;
  chain.copyIn(record, block, [tag]);
  record.cpNumber = fsinfo.cpNumber;
  // A later record may have been opened meanwhile: the chain is acknowledged in order all the
  // same.
  chain.close(record, 'cp');
  await chain.acknowledged(record.number);
  const indexKey = numberKey(prefix, 'cp', fsinfo.epoch, fsinfo.cpNumber);
  if ((await putText(objects, indexKey, `${record.number}\n`)) === 'exists') {
    const what = `${objects.name}/${prefix}: ${indexKey} was created by another server`;
    throw new StoreError('fenced', what);
  }
  return { record: record.number, indexKey };
}
