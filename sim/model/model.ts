/**
 * Owns the naive model of a store: which vdisks and snapshots there are, and what was promised
 * about them.
 *
 * 1. An act that was answered is there, wholly, whatever happens later. One that was not may be
 *    there or not: the first look after a recovery says which, and from then on it is so.
 * 2. After a recovery every sector of everything is compared; what was read is what the model holds
 *    from then on, and it is durable.
 */
import { SECTOR_BYTES } from '../../src/base/units.js';
import type { VdiskInfo } from '../../src/main/store-info.js';
import type { Contents } from '../content.js';
import { ModelDisk, type ModelParts, type ModelSplit, type Moments } from './disk.js';
import { Layer } from './layer.js';
import { Violation } from './violation.js';

/** What `list` of a store says, by name. */
export type Listing = ReadonlyMap<string, VdiskInfo>;

/** An administrative act under way. */
export interface ActUnderWay {
  readonly what: string;
  /** After a recovery: did it happen? */
  isThere(listing: Listing): boolean;
  apply(): void;
  /** It did not happen, and will not. */
  undo?(): void;
}

/** A layer of a vdisk's own, and the foreign one that it reads through. */
export interface Association {
  readonly own: Layer;
  readonly below: Layer;
  /** False: all below is of deleted disks, and may be merged by now. */
  readonly isSure: boolean;
}

export class Model {
  readonly contents: Contents;
  readonly moments: Moments;
  readonly #disks = new Set<ModelDisk>();
  readonly #acts = new Set<ActUnderWay>();
  /** Layers of what was deleted that a job may not have seen to yet. */
  readonly #deleted: Layer[] = [];
  /** Those that a job has seen to: after a crash it may have to do so again. */
  readonly #seenTo: Layer[] = [];
  #lastId = 0;

  constructor(parts: ModelParts) {
    this.contents = parts.contents;
    this.moments = parts.moments;
  }

  get disks(): ModelDisk[] {
    return [...this.#disks];
  }

  get actsUnderWay(): number {
    return this.#acts.size;
  }

  vdisks(): ModelDisk[] {
    return this.disks.filter((disk) => disk.kind === 'vdisk');
  }

  snapshots(): ModelDisk[] {
    return this.disks.filter((disk) => disk.kind === 'snapshot');
  }

  /** What can be cloned. */
  sources(): ModelDisk[] {
    return this.disks.filter((disk) => disk.kind !== 'vdisk');
  }

  snapshotsOf(vdisk: ModelDisk): ModelDisk[] {
    return this.disks.filter((disk) => disk.of === vdisk);
  }

  /** Disks whose layer is a later state of this one's, with no other named one in between. */
  holdersOf(disk: ModelDisk): ModelDisk[] {
    return this.disks.filter((other) => this.#ownerBelow(other.layer) === disk);
  }

  /** The first disk further down: what lies between was deleted, or is a snapshot not yet made. */
  #ownerBelow(layer: Layer): ModelDisk | undefined {
    for (let below = layer.below; below !== undefined; below = below.below) {
      const owner = this.#ownerOf(below);
      if (owner !== undefined) return owner;
    }
    return undefined;
  }

  #ownerOf(layer: Layer): ModelDisk | undefined {
    for (const disk of this.#disks) if (disk.layer === layer) return disk;
    return undefined;
  }

  // -- acts

  beginCreate(name: string, sizeBytes: number): ActUnderWay {
    const make = (): void => this.#add('vdisk', name, sizeBytes, new Layer());
    return this.#begin(`create ${name}`, (list) => list.has(name), make);
  }

  beginExternal(name: string, sizeBytes: number, layer: Layer): ActUnderWay {
    const make = (): void => this.#add('external', name, sizeBytes, layer);
    return this.#begin(`external ${name}`, (list) => list.has(name), make);
  }

  beginClone(source: ModelDisk, name: string): ActUnderWay {
    const make = (): void => {
      const layer = new Layer();
      layer.backing = source.layer;
      layer.below = source.layer;
      layer.limitSector = source.sizeBytes / SECTOR_BYTES;
      this.#add('vdisk', name, source.sizeBytes, layer);
    };
    return this.#begin(`clone ${source.name} ${name}`, (list) => list.has(name), make);
  }

  beginSnapshot(
    items: readonly { readonly disk: ModelDisk; readonly name: string }[],
  ): ActUnderWay {
    const made = items.map(({ disk, name }) => {
      const sizeBytes = disk.sizeBytes;
      return { disk, name, sizeBytes, past: disk.beginSnapshot() };
    });
    const names = items.map(({ disk, name }) => `${disk.name}@${name}`);
    const isThere = (list: Listing): boolean => {
      const count = names.filter((name) => list.has(name)).length;
      if (count !== 0 && count !== names.length) {
        throw new Violation(
          `snapshots asked for together: ${count} of ${names.join(', ')} are there`,
        );
      }
      return count > 0;
    };
    const apply = (): void => {
      for (const { disk, name, sizeBytes, past } of made) {
        disk.endSnapshot();
        this.#add('snapshot', name, sizeBytes, past, disk);
      }
    };
    const undo = (): void => {
      for (const { disk } of made) disk.endSnapshot();
    };
    return this.#begin(`snapshot ${names.join(' ')}`, isThere, apply, undo);
  }

  beginRename(disk: ModelDisk, newName: string): ActUnderWay {
    const oldName = disk.name;
    const isThere = (list: Listing): boolean => {
      if (list.has(oldName) === list.has(newName)) {
        throw new Violation(
          `renamed ${oldName} to ${newName}: one of the names is there, not both`,
        );
      }
      return list.has(newName);
    };
    const apply = (): void => {
      disk.ownName = newName.slice(newName.indexOf('@') + 1);
    };
    return this.#begin(`rename ${oldName} ${newName}`, isThere, apply);
  }

  beginResize(disk: ModelDisk, sizeBytes: number): ActUnderWay {
    const isThere = (list: Listing): boolean => list.get(disk.name)?.sizeBytes === sizeBytes;
    const apply = (): void => disk.resize(sizeBytes);
    disk.noteShrink(sizeBytes);
    return this.#begin(`resize ${disk.name} ${sizeBytes}`, isThere, apply);
  }

  /** All of them, or none. */
  beginDelete(disks: readonly ModelDisk[]): ActUnderWay {
    const names = disks.map(({ name }) => name);
    for (const disk of disks) disk.isLeaving = true;
    const undo = (): void => {
      for (const disk of disks) disk.isLeaving = false;
    };
    const apply = (): void => {
      for (const disk of disks) {
        disk.isGone = true;
        // Nobody is left who would hear of its end.
        if (disk.split !== undefined) disk.split.layer.mayBeCut = true;
        this.#deleted.push(disk.layer);
        this.#disks.delete(disk);
      }
    };
    const isThere = (list: Listing): boolean => {
      const left = names.filter((name) => list.has(name)).length;
      if (left !== 0 && left !== names.length) {
        throw new Violation(`deleted together: ${left} of ${names.join(', ')} are left`);
      }
      return left === 0;
    };
    return this.#begin(`delete ${names.join(' ')}`, isThere, apply, undo);
  }

  #begin(
    what: string,
    isThere: (listing: Listing) => boolean,
    apply: () => void,
    undo?: () => void,
  ): ActUnderWay {
    const act = undo === undefined ? { what, isThere, apply } : { what, isThere, apply, undo };
    this.#acts.add(act);
    return act;
  }

  endAct(act: ActUnderWay, outcome: 'done' | 'failed' | 'lost'): void {
    if (outcome === 'lost') return;
    this.#acts.delete(act);
    if (outcome === 'done') act.apply();
    else act.undo?.();
  }

  #add(
    kind: ModelDisk['kind'],
    name: string,
    sizeBytes: number,
    layer: Layer,
    of?: ModelDisk,
  ): void {
    const disk = new ModelDisk(this, { id: ++this.#lastId, kind, name, sizeBytes, layer });
    disk.of = of;
    this.#disks.add(disk);
  }

  find(name: string): ModelDisk | undefined {
    return this.disks.find((disk) => disk.name === name);
  }

  // -- durability

  /** A consistency point that was asked for at this moment is done. */
  settleAll(calledAt: number): void {
    const layers = new Set<Layer>();
    for (const disk of this.#disks) for (const layer of disk.layer.lineage()) layers.add(layer);
    const { oldestRead } = this.moments;
    for (const layer of layers) if (layer.unsettledCount > 0) layer.settle(calledAt, oldestRead);
  }

  // -- after an open

  /** Says of each act that was not answered whether it happened. */
  resolveActs(listing: Listing): string[] {
    const happened: string[] = [];
    this.#deleted.unshift(...this.#seenTo.splice(0));
    for (const act of [...this.#acts]) {
      this.#acts.delete(act);
      if (act.isThere(listing)) {
        happened.push(act.what);
        act.apply();
      } else act.undo?.();
    }
    return happened;
  }

  /** With no act under way: the store has exactly these vdisks and snapshots. */
  checkListing(listing: Listing): void {
    for (const disk of this.#disks) this.checkInfo(disk, listing.get(disk.name));
    if (listing.size === this.#disks.size) return;
    const extra = [...listing.keys()].filter((name) => this.find(name) === undefined);
    throw new Violation(`nobody made ${extra.join(', ')}, or they were deleted`);
  }

  /** @param isRenaming  names of backing stores may be any */
  checkInfo(disk: ModelDisk, info: VdiskInfo | undefined, isRenaming = false): void {
    if (info === undefined) throw new Violation(`${disk.name} is not there any more`);
    if (info.kind !== disk.kind) throw new Violation(`${disk.name} has become a ${info.kind}`);
    if (info.sizeBytes !== disk.sizeBytes) {
      throw new Violation(`${disk.name} has ${info.sizeBytes} bytes, not ${disk.sizeBytes}`);
    }
    if (!isRenaming) this.#checkBacking(disk, info);
  }

  #checkBacking(disk: ModelDisk, info: VdiskInfo): void {
    const allowed = this.#backingNames(disk);
    if (allowed.has(info.backing)) return;
    const names = [...allowed].map((name) => name ?? 'nothing').join(', ');
    throw new Violation(
      `${disk.name} reads through ${info.backing ?? 'nothing'}; allowed: ${names}`,
    );
  }

  /** What may be said of a disk's backing store: a merge or a split may end at any time. */
  #backingNames(disk: ModelDisk): Set<string | undefined> {
    const names = new Set<string | undefined>();
    const owner = this.#ownerBelow(disk.layer);
    const isDirect = disk.layer.below === owner?.layer;
    if (!isDirect) names.add('');
    names.add(owner?.name);
    const root = disk.of ?? disk;
    const isOwn = owner !== undefined && (owner.of ?? owner) === root;
    if (!isOwn && root.split !== undefined) names.add(undefined);
    if (this.#mayBeCut(disk.layer, owner?.layer)) names.add(undefined);
    return names;
  }

  /** True if the end of a split may have cut the lineage, or one below a deleted disk may do so. */
  #mayBeCut(top: Layer, end: Layer | undefined): boolean {
    if (top.mayBeCut) return true;
    const splits = new Set(this.vdisks().map(({ split }) => split?.layer));
    for (let layer = top.below; layer !== undefined && layer !== end; layer = layer.below) {
      if (layer.mayBeCut || splits.has(layer)) return true;
    }
    return false;
  }

  // -- splits

  /** Where the disk's own lineage hangs on something foreign, if it does. */
  foreignBacking(disk: ModelDisk): Association | undefined {
    const root = disk.of ?? disk;
    let own = disk.layer;
    let isSure = false;
    for (let below = own.below; below !== undefined; below = below.below) {
      const owner = this.#ownerOf(below);
      if (owner === undefined) continue;
      isSure = (owner.of ?? owner) !== root;
      if (isSure) {
        isSure = !this.#mayBeCut(own, below);
        break;
      }
      own = below;
    }
    return own.below === undefined ? undefined : { own, below: own.below, isSure };
  }

  /** True if one of these is the next with a name below: what lies between may get one yet. */
  hangsOn(disk: ModelDisk, layers: ReadonlySet<Layer>): boolean {
    const own = this.foreignBacking(disk)?.own;
    for (let below = own?.below; below !== undefined; below = below.below) {
      if (layers.has(below)) return true;
      if (this.#ownerOf(below) !== undefined) return false;
    }
    return false;
  }

  /** Vdisks over one deleted disk with this one: they may be split, and cancelled, as one. */
  splitWith(root: ModelDisk): ModelDisk[] {
    const deleted = this.#deletedBelow(root);
    return this.vdisks().filter((other) => {
      return other !== root && [...this.#deletedBelow(other)].some((layer) => deleted.has(layer));
    });
  }

  #deletedBelow(root: ModelDisk): Set<Layer> {
    const layers = new Set<Layer>();
    for (let layer = root.layer.below; layer !== undefined; layer = layer.below) {
      if (this.#ownerOf(layer) === undefined) layers.add(layer);
    }
    return layers;
  }

  /** True if a split may have taken `disk` away from `backing`. */
  maySplitAt(disk: ModelDisk, backing: ModelDisk): boolean {
    for (let at: ModelDisk | undefined = disk; at !== undefined; ) {
      const root: ModelDisk = at.of ?? at;
      if (root === (backing.of ?? backing)) return false;
      if (root.split !== undefined || this.#mayBeCut(at.layer, backing.layer)) return true;
      const own: Layer | undefined = this.foreignBacking(at)?.own;
      at = own === undefined ? undefined : this.#ownerBelow(own);
    }
    return false;
  }

  /** A split of this vdisk has ended: it stands alone. */
  endSplit(root: ModelDisk, split: ModelSplit): void {
    // Over what was deleted, the one that let go may be any of the deleted ones.
    if (split.isSure) split.layer.below = undefined;
    else split.layer.mayBeCut = true;
    // Another may have begun before anybody knew of this end.
    if (root.split === split) root.split = undefined;
  }

  /** After a recovery: which splits go on, which have ended, which never began. */
  resolveSplits(listing: Listing): void {
    for (const root of this.vdisks()) {
      const { split } = root;
      const state = listing.get(root.name)?.split?.state;
      if (state === 'undoing') {
        if (!root.mayBeUndone) throw new Violation(`nobody undoes the split of ${root.name}`);
        root.split = undefined;
        continue;
      }
      if (split === undefined) {
        // The end of one may be seen before it is durable.
        if (state === undefined || !root.isCancelled || this.#mayBeOne(root)) continue;
        throw new Violation(`the split of ${root.name} was cancelled, and is back`);
      }
      if (state !== undefined) {
        if (this.#mayBeOne(root)) split.paused = 'perhaps';
        checkPause(root, split, state);
        split.isDurable = true;
        split.isCancelled = false;
        continue;
      }
      const backing = listing.get(this.#oldestOwn(root).name)?.backing;
      if (backing === undefined) {
        this.endSplit(root, split);
      } else if (backing !== '') {
        if (split.isDurable && !this.#mayBeOne(root)) {
          throw new Violation(`the split of ${root.name} was answered, and is forgotten`);
        }
        root.split = undefined;
      }
    }
  }

  /** True if what its split is said to do may be the split of another one, which may be gone. */
  #mayBeOne(root: ModelDisk): boolean {
    if (this.splitWith(root).length > 0) return true;
    return [...this.#deletedBelow(root)].some((layer) => layer.mayBeCut);
  }

  /** The vdisk, or the oldest of its snapshots. */
  #oldestOwn(root: ModelDisk): ModelDisk {
    let oldest = root;
    for (let layer = root.layer.below; layer !== undefined; layer = layer.below) {
      const owner = this.#ownerOf(layer);
      if (owner === undefined) continue;
      if (owner.of !== root) break;
      oldest = owner;
    }
    return oldest;
  }

  // -- deletes

  /** If the disk cannot be deleted: certainly, or perhaps, since a job may have let go of it. */
  mustStay(disk: ModelDisk): 'certainly' | 'perhaps' | undefined {
    if (this.snapshotsOf(disk).length > 0) return 'certainly';
    const holders = this.holdersOf(disk);
    const certain = holders.filter(
      (other) =>
        !other.isLeaving &&
        (other.of ?? other).split === undefined &&
        !this.#mayBeCut(other.layer, disk.layer),
    );
    // A deleted snapshot merges into its one holder; an external backing store cannot.
    const holdersMax = disk.kind === 'external' ? 0 : 1;
    // Those that share a deleted one in between hold it together, and only once.
    const direct = new Set(certain.map((other) => layerOver(other.layer, disk.layer)));
    if (direct.size > holdersMax) return 'certainly';
    if (holders.length > holdersMax) return 'perhaps';
    return this.#hasDeletedHolder(disk) ? 'perhaps' : undefined;
  }

  /** No background job is left over from what was deleted so far. */
  noteIdle(deletedBefore: number): void {
    this.#seenTo.push(...this.#deleted.splice(0, deletedBefore));
  }

  get deletedCount(): number {
    return this.#deleted.length;
  }

  /** A deleted disk over this one may hold it until a background job has seen to it. */
  #hasDeletedHolder(disk: ModelDisk): boolean {
    return this.#deleted.some((layer) => this.#ownerBelow(layer) === disk);
  }
}

/** A pause that was answered lasts, and so does the end of one. */
function checkPause(root: ModelDisk, split: ModelSplit, state: string): void {
  const paused = state === 'paused' ? 'yes' : 'no';
  const known = split.paused ?? 'no';
  if (known !== 'perhaps' && known !== paused) {
    throw new Violation(`the split of ${root.name} is ${state}; paused: ${known}`);
  }
  split.paused = paused;
}

/** Of the layers from `top` down, the one just over `below`. */
function layerOver(top: Layer, below: Layer): Layer {
  let layer = top;
  while (layer.below !== undefined && layer.below !== below) layer = layer.below;
  return layer;
}
