/**
 * The external backing stores of one open store: which vdisk-like names stand for files, opening
 * them, putting others in their place.
 *
 * 1. A file that is missing or changed keeps nobody from opening the store: only what reads it
 *    fails.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import type { LogSink } from '../env/log-sink.js';
import type {
  ExternalDescriptor,
  ExternalFormat,
  ImageFormat,
} from '../layout/external-descriptor.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import type { Acts } from '../vdisk/acts.js';
import { loadDescriptor } from '../vdisk/descriptor-blocks.js';
import type { ExternalSource, ExternalStore } from '../vdisk/external-store.js';
import type { Externals } from '../vdisk/externals.js';
import type { VdiskEntry } from '../vdisk/vdisk-table.js';
import { differenceOf } from './image-externals.js';
import { PublishedStore, type ReachStore } from './published-store.js';

export interface ExternalOptions {
  /** Default: the first bytes of the file decide. Say it when the file is a stranger's. */
  readonly format?: ImageFormat;
}

export interface RelocateOptions extends ExternalOptions {
  /**
   * The new files may look different, a raw copy of a qcow2 say: the caller vouches for it that
   * they hold the same disk.
   */
  readonly trust?: boolean;
}

/** What is behind an external backing store: files, or what another store has published. */
export interface ExternalInfo {
  readonly format: ExternalFormat | undefined;
  /** The image, the file behind it, and so on; or the published snapshot. */
  readonly files: readonly string[];
  /** Why it cannot be read, as far as is known. */
  readonly trouble: string | undefined;
}

/** A descriptor that could not be read: nobody knows which files these are. */
class LostStore implements ExternalStore {
  readonly trouble: StoreError;

  constructor(trouble: StoreError) {
    this.trouble = trouble;
  }

  read(): Promise<void> {
    return Promise.reject(this.trouble);
  }

  presence(): Promise<Uint8Array> {
    return Promise.reject(this.trouble);
  }

  look(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export class ExternalCatalog {
  readonly #engine: Engine;
  readonly #externals: Externals;
  readonly #source: ExternalSource;
  readonly #reach: ReachStore;
  readonly #log: LogSink;
  readonly #descriptors = new Map<Tree, ExternalDescriptor>();

  constructor(engine: Engine, externals: Externals, source: ExternalSource, reach: ReachStore) {
    this.#engine = engine;
    this.#externals = externals;
    this.#source = source;
    this.#reach = reach;
    this.#log = engine.options.log;
  }

  /** Opens all that the store has. Whether the files are there shows by and by. */
  async openAll(): Promise<void> {
    for (const tree of this.#engine.externals) {
      if (tree.state !== 'live') continue;
      try {
        this.begin(tree, await loadDescriptor(this.#engine, tree));
      } catch (error) {
        if (!isStoreError(error)) throw error;
        this.#externals.add(tree, new LostStore(error));
        this.#log({ level: 'error', event: 'external-lost', message: `${error.message}.` });
      }
    }
  }

  /** From here on the tree is read from what the descriptor says. */
  begin(tree: Tree, descriptor: ExternalDescriptor): void {
    const store =
      descriptor.format === 'published'
        ? new PublishedStore(descriptor, this.#reach, this.#log)
        : this.#source.open(descriptor, this.#log);
    this.#descriptors.set(tree, descriptor);
    this.#externals.add(tree, store);
    void store.look();
  }

  async create(
    acts: Acts,
    name: string,
    path: string,
    options: ExternalOptions,
  ): Promise<VdiskEntry> {
    const descriptor = await this.#source.describe(path, options.format);
    return acts.createExternal(name, descriptor, (tree) => this.begin(tree, descriptor));
  }

  /** @throws {StoreError} invalid: it is no external one, or the files hold another disk */
  async relocate(
    acts: Acts,
    entry: VdiskEntry,
    path: string,
    options: RelocateOptions,
  ): Promise<void> {
    const { head, name } = entry;
    if (!head.isExternal) throw notExternal(name);
    const was = this.#descriptors.get(head);
    if (was?.format === 'published') {
      throw new StoreError('invalid', `${name} is a snapshot of another store, and no file`);
    }
    const is = await this.#source.describe(path, options.format ?? was?.format);
    if (is.sizeBytes !== head.sizeBytes) {
      const sizes = `${is.sizeBytes} bytes, ${name} has ${head.sizeBytes}`;
      throw new StoreError('invalid', `${path} is another disk: it has ${sizes}`);
    }
    const difference = options.trust === true ? undefined : chainDifference(was, is);
    if (difference !== undefined) {
      const next = 'say that you trust it if you know that it holds the same disk';
      throw new StoreError('invalid', `${path} is not what ${name} was: ${difference}; ${next}`);
    }
    await acts.redescribe(entry, is);
    const old = this.#externals.of(head);
    this.begin(head, is);
    await old?.close();
  }

  /** Undefined if it is lost. */
  descriptorOf(tree: Tree): ExternalDescriptor | undefined {
    return this.#descriptors.get(tree);
  }

  /** Those that are snapshots of other stores. */
  published(): Tree[] {
    return [...this.#descriptors].flatMap(([tree, { format }]) =>
      format === 'published' ? [tree] : [],
    );
  }

  isPublished(tree: Tree): boolean {
    return this.#descriptors.get(tree)?.format === 'published';
  }

  infoOf(tree: Tree): ExternalInfo | undefined {
    if (!tree.isExternal) return undefined;
    const descriptor = this.#descriptors.get(tree);
    return {
      format: descriptor?.format,
      files: descriptor?.files.map(({ path }) => path) ?? [],
      trouble: this.#externals.of(tree)?.trouble?.message,
    };
  }

  /** Looks whether it can be read now. @throws {StoreError} invalid */
  async look(entry: VdiskEntry): Promise<void> {
    if (!entry.head.isExternal) throw notExternal(entry.name);
    await this.#externals.of(entry.head)?.look();
  }

  /** It was deleted: nobody reads through it. */
  async end(tree: Tree): Promise<void> {
    this.#descriptors.delete(tree);
    await this.#externals.remove(tree)?.close();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#externals.all()].map((store) => store.close()));
  }
}

function notExternal(name: string): StoreError {
  return new StoreError('invalid', `${name} is no external backing store: no file is behind it`);
}

/** What tells that the files are not copies of those that were described; undefined if nothing. */
function chainDifference(
  was: ExternalDescriptor | undefined,
  is: ExternalDescriptor,
): string | undefined {
  if (was === undefined) return 'what it was is lost';
  if (was.format !== is.format) return `it is ${is.format}, not ${was.format}`;
  if (was.files.length !== is.files.length) {
    return `it is a chain of ${is.files.length} files, not of ${was.files.length}`;
  }
  for (const [index, file] of was.files.entries()) {
    const now = is.files[index];
    const difference = now === undefined ? 'missing' : differenceOf(file, now);
    if (difference !== undefined) return `${now?.path ?? file.path}: ${difference}`;
  }
  return undefined;
}
