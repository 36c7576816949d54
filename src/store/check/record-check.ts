/**
 * Tree records and vdisk records: each by itself, and how they name each other.
 */
import {
  BLOCK_BYTES,
  FIELDS_PER_BLOCK,
  HEIGHT_MAX,
  heightFor,
  SECTOR_BYTES,
  SPAN_BLOCKS,
  VDISK_BYTES_MAX,
} from '../../base/units.js';
import {
  DESCRIPTOR_BLOCKS_MAX,
  DESCRIPTOR_FBN,
  EXTERNAL_HEIGHT,
} from '../../layout/external-descriptor.js';
import type { Fsinfo } from '../../layout/fsinfo.js';
import {
  decodeTreeRecord,
  TREE_RECORD_BYTES,
  TREE_RECORDS_PER_BLOCK,
  type TreeRecord,
} from '../../layout/tree-record.js';
import {
  decodeVdiskRecord,
  VDISK_RECORD_BYTES,
  VDISK_RECORDS_PER_BLOCK,
  type VdiskRecord,
} from '../../layout/vdisk-record.js';
import type { FaultKind, Findings } from './check-report.js';

export class StoreRecords {
  readonly trees = new Map<number, TreeRecord>();
  readonly vdisks = new Map<number, VdiskRecord>();
  /** Ids of the trees that read through this one. */
  readonly over = new Map<number, number[]>();
  readonly #findings: Findings;
  readonly #fsinfo: Fsinfo;
  readonly #name: string;

  constructor(findings: Findings, fsinfo: Fsinfo, name: string) {
    this.#findings = findings;
    this.#fsinfo = fsinfo;
    this.#name = name;
  }

  addTreeBlock(fbn: number, bytes: Uint8Array): void {
    for (let index = 0; index < TREE_RECORDS_PER_BLOCK; index++) {
      const start = index * TREE_RECORD_BYTES;
      const record = decodeTreeRecord(bytes.subarray(start, start + TREE_RECORD_BYTES));
      if (record === 'free') continue;
      const place = fbn * TREE_RECORDS_PER_BLOCK + index;
      if (record === undefined) {
        this.#add('tree-record', `tree record ${place} makes no sense`);
        this.#findings.markIncomplete();
      } else if (this.trees.has(record.id)) {
        this.#add(
          'tree-record',
          `tree record ${place} has id ${record.id}, which is there already`,
        );
        this.#findings.markIncomplete();
      } else {
        this.trees.set(record.id, record);
      }
    }
  }

  addVdiskBlock(fbn: number, bytes: Uint8Array): void {
    for (let index = 0; index < VDISK_RECORDS_PER_BLOCK; index++) {
      const start = index * VDISK_RECORD_BYTES;
      const record = decodeVdiskRecord(bytes.subarray(start, start + VDISK_RECORD_BYTES));
      if (record === 'free') continue;
      const place = fbn * VDISK_RECORDS_PER_BLOCK + index;
      if (record === undefined) {
        this.#add('vdisk-record', `vdisk record ${place} makes no sense`);
        this.#findings.markIncomplete();
      } else if (this.vdisks.has(record.id)) {
        const id = `id ${record.id}, which is there already`;
        this.#add('vdisk-record', `vdisk record ${place} has ${id}`);
      } else {
        this.vdisks.set(record.id, record);
      }
    }
  }

  /** `golden@v1 (tree 3)`, or what else says whose blocks they are. */
  nameOfTree(id: number): string {
    const tree = this.trees.get(id);
    const owner = this.vdisks.get(tree?.ownerId ?? 0);
    if (owner !== undefined) return `${this.nameOfVdisk(owner)} (tree ${id})`;
    return tree === undefined || tree.state === 'live' ? `tree ${id}` : `${tree.state} tree ${id}`;
  }

  nameOfVdisk(record: VdiskRecord): string {
    if (record.kind !== 'snapshot') return record.name;
    return `${this.vdisks.get(record.ofVdiskId)?.name ?? ''}@${record.name}`;
  }

  /** All records are in: judges them. */
  check(): void {
    for (const tree of this.trees.values()) {
      if (tree.backingId === 0) continue;
      const over = this.over.get(tree.backingId);
      if (over === undefined) this.over.set(tree.backingId, [tree.id]);
      else over.push(tree.id);
    }
    for (const tree of this.trees.values()) this.#checkTree(tree);
    const names = new Set<string>();
    for (const vdisk of this.vdisks.values()) this.#checkVdisk(vdisk, names);
    this.#findings.counts.trees = this.trees.size;
    for (const { kind } of this.vdisks.values()) {
      if (kind === 'vdisk') this.#findings.counts.vdisks++;
      else if (kind === 'snapshot') this.#findings.counts.snapshots++;
      else this.#findings.counts.externals++;
    }
  }

  #add(kind: FaultKind, what: string): void {
    this.#findings.add(kind, `${what} (${this.#name})`);
  }

  #checkTree(tree: TreeRecord): void {
    const name = this.nameOfTree(tree.id);
    const fault = treeFault(tree, this.#fsinfo);
    if (fault !== undefined) this.#add('tree-record', `${name}: ${fault}`);
    this.#checkOwner(tree, name);
    this.#checkLineage(tree, name);
    const split = splitFault(tree);
    if (split !== undefined) this.#add('split', `${name}: ${split}`);
  }

  #checkOwner(tree: TreeRecord, name: string): void {
    const ownerKind = this.vdisks.get(tree.ownerId)?.kind;
    if (ownerKind !== undefined && tree.isExternal !== (ownerKind === 'external')) {
      const what = tree.isExternal ? 'external' : 'not external';
      this.#add('tree-record', `${name} is ${what}, but its record is of kind ${ownerKind}`);
    }
    if (tree.state !== 'live') {
      if (tree.ownerId === 0) return;
      this.#add('tree-record', `${name} still has an owner, record ${tree.ownerId}`);
      return;
    }
    const owner = this.vdisks.get(tree.ownerId);
    if (owner?.headTreeId === tree.id) return;
    const what =
      owner === undefined
        ? 'which is missing'
        : `whose tree is ${owner.headTreeId} (${this.nameOfVdisk(owner)})`;
    this.#add('tree-record', `${name} belongs to vdisk record ${tree.ownerId}, ${what}`);
  }

  #checkLineage(tree: TreeRecord, name: string): void {
    const over = this.over.get(tree.id) ?? [];
    if (tree.state === 'deleting' && tree.goneBelowFbn > 0 && over.length > 1) {
      this.#add('lineage', `${name} is being merged, but trees ${over.join(', ')} read through it`);
    }
    if (tree.backingId === 0) return;
    if (tree.state === 'dying') {
      this.#add('lineage', `${name} still reads through tree ${tree.backingId}`);
    }
    const backing = this.trees.get(tree.backingId);
    if (backing === undefined || backing.state === 'dying') {
      const state = backing === undefined ? 'missing' : 'dying';
      this.#add('lineage', `${name} reads through tree ${tree.backingId}, which is ${state}`);
      return;
    }
    const owner = this.vdisks.get(backing.ownerId);
    if (owner?.kind === 'vdisk') {
      this.#add('lineage', `${name} reads through ${owner.name}, which is no snapshot`);
    }
    if (tree.readThroughLimitBytes > backing.sizeBytes) {
      const limit = `up to byte ${tree.readThroughLimitBytes}`;
      this.#add(
        'lineage',
        `${name} reads through ${limit}, its backing tree has ${backing.sizeBytes}`,
      );
    }
    if (this.#isCircle(tree)) this.#add('lineage', `${name} reads, in the end, through itself`);
  }

  #isCircle(tree: TreeRecord): boolean {
    let steps = 0;
    for (let id = tree.backingId; id !== 0; id = this.trees.get(id)?.backingId ?? 0) {
      if (id === tree.id) return true;
      if (++steps > this.trees.size) return false;
    }
    return false;
  }

  #checkVdisk(vdisk: VdiskRecord, names: Set<string>): void {
    const name = this.nameOfVdisk(vdisk);
    const what = `${vdisk.kind} ${name} (record ${vdisk.id})`;
    const fault = this.#vdiskFault(vdisk);
    if (fault !== undefined) this.#add('vdisk-record', `${what} ${fault}`);
    const key = `${vdisk.ofVdiskId}@${vdisk.name}`;
    if (names.has(key))
      this.#add('name', `there are two called ${name}: record ${vdisk.id} is one`);
    names.add(key);
    if (vdisk.kind === 'snapshot' && !this.#isInPast(vdisk)) {
      this.#add('lineage', `${what} is not in the past of its vdisk`);
    }
  }

  #vdiskFault(vdisk: VdiskRecord): string | undefined {
    if (vdisk.gone) return 'is marked as removed, which only a log entry may be';
    if (vdisk.id >= this.#fsinfo.nextVdiskId) {
      return `has an id that is not given out yet: the next one is ${this.#fsinfo.nextVdiskId}`;
    }
    if (vdisk.createdCp > this.#fsinfo.cpNumber) {
      return `was made in CP ${vdisk.createdCp}, after this CP ${this.#fsinfo.cpNumber}`;
    }
    const head = this.trees.get(vdisk.headTreeId);
    if (head === undefined) return `names tree ${vdisk.headTreeId}, which is missing`;
    if (head.state !== 'live') return `names tree ${vdisk.headTreeId}, which is ${head.state}`;
    if (head.ownerId !== vdisk.id) {
      return `names tree ${head.id}, which belongs to record ${head.ownerId}`;
    }
    if (vdisk.kind !== 'snapshot') {
      return vdisk.ofVdiskId === 0 ? undefined : `is a snapshot of record ${vdisk.ofVdiskId} too`;
    }
    if (this.vdisks.get(vdisk.ofVdiskId)?.kind !== 'vdisk') {
      return `is the past of vdisk record ${vdisk.ofVdiskId}, which is missing`;
    }
    return undefined;
  }

  /** True if the vdisk, as it is now, reads through its snapshot; or if that cannot be told. */
  #isInPast(snapshot: VdiskRecord): boolean {
    const vdisk = this.vdisks.get(snapshot.ofVdiskId);
    if (vdisk === undefined) return true;
    let steps = 0;
    for (let id = vdisk.headTreeId; id !== 0; ) {
      if (id === snapshot.headTreeId) return true;
      const tree = this.trees.get(id);
      if (tree === undefined || ++steps > this.trees.size) return true;
      id = tree.backingId;
    }
    return false;
  }
}

/** First FBN behind the tree's size. */
export function endOfTree(tree: TreeRecord): number {
  if (tree.state === 'dying') return SPAN_BLOCKS[tree.height] as number;
  if (tree.isExternal) return DESCRIPTOR_FBN + DESCRIPTOR_BLOCKS_MAX;
  return Math.ceil(tree.sizeBytes / BLOCK_BYTES);
}

function treeFault(tree: TreeRecord, fsinfo: Fsinfo): string | undefined {
  const { id, height, sizeBytes, state, goneBelowFbn } = tree;
  if (id >= fsinfo.nextTreeId) return `its id is not given out yet, next is ${fsinfo.nextTreeId}`;
  if (height > HEIGHT_MAX) return `its height is ${height}`;
  if (goneBelowFbn > (SPAN_BLOCKS[height] as number) || goneBelowFbn % FIELDS_PER_BLOCK !== 0) {
    return `it is gone below FBN ${goneBelowFbn}, which no job leaves behind`;
  }
  if (tree.countedById !== 0 && (state !== 'dying' || tree.countedById >= fsinfo.nextTreeId)) {
    return `it is counted by tree ${tree.countedById}`;
  }
  if (state === 'dying') return undefined;
  if (state === 'live' && goneBelowFbn !== 0) return `it lives, and is gone below ${goneBelowFbn}`;
  if (sizeBytes % SECTOR_BYTES !== 0 || sizeBytes < SECTOR_BYTES || sizeBytes > VDISK_BYTES_MAX) {
    return `its size is ${sizeBytes} bytes`;
  }
  if (height < heightFor(sizeBytes)) return `height ${height} is too low for ${sizeBytes} bytes`;
  if (tree.isExternal) return externalFault(tree);
  if (tree.backingId !== 0 && tree.readThroughLimitBytes > sizeBytes) {
    return `it reads through up to byte ${tree.readThroughLimitBytes}, but has ${sizeBytes}`;
  }
  return undefined;
}

function externalFault(tree: TreeRecord): string | undefined {
  const { height, state, sizeBytes, readThroughLimitBytes } = tree;
  if (state !== 'live') return `it is external and ${state}`;
  if (height < EXTERNAL_HEIGHT) return `height ${height} is too low for an external tree`;
  if (readThroughLimitBytes === sizeBytes) return undefined;
  return `it reads its file up to byte ${readThroughLimitBytes}, but has ${sizeBytes}`;
}

function splitFault(tree: TreeRecord): string | undefined {
  const { split } = tree;
  if (split === undefined) return undefined;
  if (tree.state === 'dying') return 'it is dying and being split';
  if (tree.backingId === 0) return 'it is being split from no backing store';
  if (split.positionFbn > (SPAN_BLOCKS[tree.height] as number)) {
    return `its split has come to FBN ${split.positionFbn}, beyond the tree`;
  }
  if (split.phase === 'releasing' && split.bad.length > 0) {
    return `it is being released with ${split.bad.length} ranges that could not be filled`;
  }
  let end = 0;
  for (const { fbn, blocks } of split.bad) {
    if (blocks === 0 || fbn < end) return `bad range of ${blocks} blocks at FBN ${fbn}`;
    end = fbn + blocks;
  }
  return undefined;
}
