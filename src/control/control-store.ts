/** What the control API asks of a store: the Store of `main` is one. */
import type { CertificateRecord } from '../layout/certificate-record.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { VerifyOptions, VerifyReport } from '../split/certificate/make-certificate.js';
import type { PolicyChange } from '../split/policy-change.js';
import type { SplitState } from '../split/split-job.js';
import type { SplitPlan, SplitPlanOptions } from '../split/split-plan.js';
import type { BlockCacheStats } from '../store/object-log/cache/block-cache.js';
import type { CleanerStats } from '../store/object-log/cleaner/cleaner.js';
import type { SweepStats } from '../store/object-log/orphan-sweep.js';
import type { SnapshotItem } from '../vdisk/acts.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import type { DiffExtent } from '../vdisk/diff.js';
import type { ScanReport } from '../vdisk/scan.js';
import type { Stats } from './schemas.js';

export interface StoreVdisk {
  readonly name: string;
  readonly kind: 'vdisk' | 'snapshot' | 'external';
  readonly sizeBytes: number;
  /** Undefined: stands alone. '': a deleted snapshot that is being merged. */
  readonly backing: string | undefined;
  readonly mappedBytes: number;
  readonly sharedBytes: number;
  readonly ownBytes: number;
  readonly split: SplitState | undefined;
  readonly holders: readonly string[];
  readonly external:
    | {
        readonly format: 'raw' | 'qcow2' | 'published' | undefined;
        readonly files: readonly string[];
        readonly trouble: string | undefined;
      }
    | undefined;
  readonly published: string | undefined;
  readonly certificate: CertificateRecord | undefined;
  readonly durability: 'device' | 'remote' | 'local';
}

/** The counters that the statistics show. */
export type StoreCounters = Omit<Stats['store'], 'background' | 'localLog'> & {
  readonly localLog: Stats['store']['localLog'] | undefined;
  readonly background: 'free' | 'merge' | undefined;
  readonly recovered: boolean;
  /** Of a store on an object store. */
  readonly dataBytesPlaced: number | undefined;
  readonly cleaner: CleanerStats | undefined;
  readonly cache: BlockCacheStats | undefined;
  readonly sweep: SweepStats | undefined;
};

export interface StoreSplit {
  readonly done: Promise<void>;
  state(): SplitState | undefined;
}

export interface StoreSplitPlan extends SplitPlan {
  readonly name: string;
  /** '' if it was deleted already. */
  readonly backing: string;
  /** What else reads through that. */
  readonly otherHolders: readonly string[];
}

/** What becomes of others that need what is deleted: see Store.delete. */
export type InUse = 'refuse' | 'defer' | 'split';

export interface ImageOptions {
  readonly format?: 'raw' | 'qcow2';
}

export interface RelocateOptions extends ImageOptions {
  readonly trust?: boolean;
}

export interface StorePublication {
  readonly name: string;
  readonly publishedAs: string;
  readonly id: string;
  readonly sizeBytes: number;
  readonly holders: readonly { readonly store: string; readonly name: string }[];
}

/** Every act is durable when its promise resolves; all throw StoreErrors. */
export interface ControlStore {
  createVdisk(name: string, sizeBytes: number): Promise<BlockTarget>;
  vdisk(name: string): BlockTarget;
  list(): StoreVdisk[];
  show(name: string): StoreVdisk;
  snapshot(items: readonly SnapshotItem[]): Promise<void>;
  clone(snapshot: string, name: string): Promise<BlockTarget>;
  publish(name: string): Promise<void>;
  unpublish(name: string, options: { readonly dropHolders: boolean }): Promise<void>;
  publications(): Promise<StorePublication[]>;
  createExternal(name: string, path: string, options: ImageOptions): Promise<BlockTarget>;
  relocate(name: string, path: string, options: RelocateOptions): Promise<void>;
  lookAtExternal(name: string): Promise<void>;
  rename(name: string, newName: string): Promise<void>;
  resize(name: string, sizeBytes: number): Promise<void>;
  delete(name: string, options?: { readonly inUse?: InUse }): Promise<void>;
  split(name: string, options: PolicyChange & { readonly mode: SplitMode }): Promise<StoreSplit>;
  splitOf(name: string): StoreSplit | undefined;
  changeSplit(name: string, change: PolicyChange & { readonly mode?: SplitMode }): Promise<void>;
  pauseSplit(name: string): Promise<void>;
  resumeSplit(name: string): Promise<void>;
  cancelSplit(name: string, options?: { readonly undo?: boolean }): Promise<void>;
  planSplit(name: string, options: SplitPlanOptions): Promise<StoreSplitPlan>;
  diff(from: string | undefined, to: string): AsyncGenerator<DiffExtent>;
  scan(name: string): Promise<ScanReport>;
  verify(name: string, options: VerifyOptions): Promise<VerifyReport>;
  contentHash(name: string, options: { signal: AbortSignal }): Promise<Uint8Array>;
  consistencyPoint(): Promise<void>;
  stats(): StoreCounters;
}
