/**
 * The tree record: 256 bytes, sixteen to a block of the tree file. Offsets in docs/FORMAT.md.
 *
 * In a log entry the same image carries attributes only: its root and counters are not looked at.
 */
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES, HEIGHT_MAX } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';
import { decodeSplitPolicy, encodeSplitPolicy, type SplitPolicy } from './split-policy.js';

export const TREE_RECORD_BYTES = 256;
export const TREE_RECORDS_PER_BLOCK = BLOCK_BYTES / TREE_RECORD_BYTES;

/**
 * live: belongs to a vdisk or snapshot. deleting: its snapshot is gone; merges into the tree over
 * it when one is left, or dies when there is none. dying: its blocks are being freed.
 */
export type TreeState = 'live' | 'deleting' | 'dying';
const STATES: readonly TreeState[] = ['live', 'deleting', 'dying'];

export type SplitMode = 'copy' | 'share';
/**
 * filling: position moves on. releasing: every fill is durable, the association goes next. paused:
 * somebody wished it. undoing: what was filled becomes holes again, position moves on.
 */
export type SplitPhase = 'filling' | 'releasing' | 'paused' | 'undoing';
const PHASES: readonly SplitPhase[] = ['filling', 'releasing', 'paused', 'undoing'];

/** Blocks of the backing store that could not be read, so that their holes stay. */
export interface BadRange {
  readonly fbn: number;
  readonly blocks: number;
}
/** Ranges that fit the record: (256 - 136) / 12. */
export const BAD_RANGES_MAX = 10;

const FLAG_EXTERNAL_TREE = 1;

export interface SplitRecord {
  readonly mode: SplitMode;
  readonly phase: SplitPhase;
  readonly policy: SplitPolicy;
  /** Every hole below this FBN has been looked at; undoing: every filled field. */
  readonly positionFbn: number;
  readonly bad: readonly BadRange[];
}

export interface TreeRecord {
  readonly id: number;
  readonly state: TreeState;
  readonly height: number;
  readonly root: readonly [number, number, number, number];
  readonly sizeBytes: number;
  /** Tree that holes are read from; 0 for none. */
  readonly backingId: number;
  readonly readThroughLimitBytes: number;
  /** Data blocks that this tree's pointers name. */
  readonly mappedBlocks: number;
  /** Of these, the ones that another tree names too. */
  readonly sharedBlocks: number;
  /** Vdisk or snapshot record that this tree belongs to; 0 when deleting or dying. */
  readonly ownerId: number;
  /** Fields wholly below this FBN are no longer this tree's: freed, or merged down. */
  readonly goneBelowFbn: number;
  /** dying: tree whose mappedBlocks still counts these blocks; 0 for none. */
  readonly countedById: number;
  /**
   * What its holes lead to stands in files outside of the store. Its own blocks are the descriptor
   * of these; see external-descriptor.ts.
   */
  readonly isExternal: boolean;
  readonly split: SplitRecord | undefined;
}

export function encodeTreeRecord(record: TreeRecord, bytes: Uint8Array): void {
  invariant(record.id > 0 && isHeight(record.height), 'a tree has an id and a height of 1 to 5');
  bytes.fill(0);
  const view = viewOf(bytes);
  putU64(view, 0, record.id);
  bytes[8] = STATES.indexOf(record.state) + 1;
  bytes[9] = record.height;
  for (let w = 0; w < 4; w++) view.setUint32(16 + w * 4, record.root[w] as number, true);
  putU64(view, 32, record.sizeBytes);
  putU64(view, 40, record.backingId);
  putU64(view, 48, record.readThroughLimitBytes);
  putU64(view, 56, record.mappedBlocks);
  putU64(view, 64, record.sharedBlocks);
  putU64(view, 72, record.ownerId);
  putU64(view, 80, record.goneBelowFbn);
  putU64(view, 88, record.countedById);
  bytes[12] = record.isExternal ? FLAG_EXTERNAL_TREE : 0;
  invariant(isPossible(record), 'an external tree has no backing tree and no split');
  const split = record.split;
  if (split === undefined) return;
  invariant(split.bad.length <= BAD_RANGES_MAX, 'the bad ranges of a split fit its tree record');
  bytes[10] = split.mode === 'copy' ? 1 : 2;
  bytes[11] = PHASES.indexOf(split.phase) + 1;
  encodeSplitPolicy(split.policy, bytes, view);
  putU64(view, 96, split.positionFbn);
  view.setUint32(104, split.bad.length, true);
  split.bad.forEach((range, index) => {
    putU64(view, 136 + index * 12, range.fbn);
    view.setUint32(144 + index * 12, range.blocks, true);
  });
}

/** The record, 'free' for an empty slot, or undefined if the bytes cannot be one. */
export function decodeTreeRecord(bytes: Uint8Array): TreeRecord | 'free' | undefined {
  if (bytes.length !== TREE_RECORD_BYTES) return undefined;
  const view = viewOf(bytes);
  const id = getU64(view, 0);
  if (id === 0) return 'free';
  const state = STATES[(bytes[8] as number) - 1];
  const height = bytes[9] as number;
  const numbers: number[] = [id];
  for (let offset = 32; offset < 104; offset += 8) numbers.push(getU64(view, offset));
  if (state === undefined || !isHeight(height)) return undefined;
  if (numbers.some(Number.isNaN)) return undefined;
  const split = decodeSplit(bytes, view);
  const flags = bytes[12] as number;
  if (split === 'bad' || flags > FLAG_EXTERNAL_TREE) return undefined;
  const word = (w: number): number => view.getUint32(16 + w * 4, true);
  const at = (index: number): number => numbers[index] as number;
  const record: TreeRecord = {
    id,
    state,
    height,
    root: [word(0), word(1), word(2), word(3)],
    sizeBytes: at(1),
    backingId: at(2),
    readThroughLimitBytes: at(3),
    mappedBlocks: at(4),
    sharedBlocks: at(5),
    ownerId: at(6),
    goneBelowFbn: at(7),
    countedById: at(8),
    isExternal: flags === FLAG_EXTERNAL_TREE,
    split,
  };
  return isPossible(record) ? record : undefined;
}

/** An external tree ends its lineage. */
function isPossible({ isExternal, backingId, split }: TreeRecord): boolean {
  return !isExternal || (backingId === 0 && split === undefined);
}

function isHeight(height: number): boolean {
  return height >= 1 && height <= HEIGHT_MAX;
}

function decodeSplit(bytes: Uint8Array, view: DataView): SplitRecord | undefined | 'bad' {
  const mode = bytes[10] as number;
  if (mode === 0) return undefined;
  const phase = PHASES[(bytes[11] as number) - 1];
  const policy = decodeSplitPolicy(bytes, view);
  const count = view.getUint32(104, true);
  if (policy === undefined) return 'bad';
  if (mode > 2 || phase === undefined || count > BAD_RANGES_MAX) return 'bad';
  const bad: BadRange[] = [];
  for (let index = 0; index < count; index++) {
    bad.push({
      fbn: getU64(view, 136 + index * 12),
      blocks: view.getUint32(144 + index * 12, true),
    });
  }
  if (bad.some((range) => Number.isNaN(range.fbn))) return 'bad';
  const positionFbn = getU64(view, 96);
  return { mode: mode === 1 ? 'copy' : 'share', phase, policy, positionFbn, bad };
}
