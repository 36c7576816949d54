/**
 * The offline check: walks everything that the newest fsinfo reaches, counts it, and compares.
 *
 * Memory: 128 bytes for each 4 MiB of the store that is in use, 4 KiB for each block of the active
 * map and of the usage file, and 32 bytes for each block that a share split shares; about 50 MiB
 * for a store with 1 TiB in use. Time: every block in use is read once, metadata twice in place.
 */
import type { Device } from '../../env/device.js';
import type { ObjectStore } from '../../env/object-store.js';
import { hasSharedIndirect, METAFILES, type Metafile } from '../../layout/fsinfo.js';
import { BlockVerifier } from './block-verifier.js';
import type { CheckMedium } from './check-medium.js';
import { type CheckReport, Findings } from './check-report.js';
import { ExternalCheck } from './external-check.js';
import { InPlaceCheckMedium, openInPlace } from './in-place-check-medium.js';
import { LogCheck } from './log-check.js';
import { MapCheck } from './map-check.js';
import { type ObjectLogCheckMedium, openObjectLogForCheck } from './object-log-check-medium.js';
import { countOrphans } from './orphan-check.js';

import { checkPublications } from './publication-check.js';
import { endOfTree, StoreRecords } from './record-check.js';
import { compareRecordUsage } from './record-usage-check.js';
import { ReferenceCount } from './reference-count.js';
import { SplitCheck } from './split-check.js';
import { TreeCount } from './tree-count.js';
import { TreeWalker } from './tree-walk.js';

export interface CheckOptions {
  /** Write damaged copies of metadata and fsinfo again from the sound ones; nothing else. */
  readonly repair?: boolean;
  /** Do not read data blocks: only metadata is checked. */
  readonly skipData?: boolean;
}

/** Checks a store on a device, which stays open. @throws {StoreError} invalid, unsupported */
export async function checkDevice(device: Device, options: CheckOptions): Promise<CheckReport> {
  const findings = new Findings();
  const medium = await openInPlace(device, findings, options.repair === true);
  await new Checker(medium, findings, options).run();
  return findings.toReport();
}

/** Checks a store on an object store. @throws {StoreError} invalid, unsupported, device */
export async function checkObjectLog(
  objects: ObjectStore,
  prefix: string,
  options: CheckOptions,
): Promise<CheckReport> {
  const findings = new Findings();
  const medium = await openObjectLogForCheck(objects, prefix, findings);
  if (medium !== undefined) await new Checker(medium, findings, options).run();
  return findings.toReport();
}

type Opened = InPlaceCheckMedium | ObjectLogCheckMedium;

class Checker {
  readonly #medium: Opened;
  readonly #findings: Findings;
  readonly #records: StoreRecords;
  readonly #verifier: BlockVerifier;
  readonly #walker: TreeWalker;
  readonly #references: ReferenceCount;
  readonly #counts: TreeCount;
  readonly #log: LogCheck;
  readonly #externals: ExternalCheck;
  /** A shared pointer was met. */
  #isAnnounced = false;

  constructor(medium: Opened, findings: Findings, options: CheckOptions) {
    const { name, fsinfo } = medium;
    const records = new StoreRecords(findings, fsinfo, name);
    const verifier = new BlockVerifier(
      medium satisfies CheckMedium,
      findings,
      { repair: options.repair === true, skipData: options.skipData === true },
      (treeId) => records.nameOfTree(treeId),
    );
    this.#medium = medium;
    this.#findings = findings;
    this.#records = records;
    this.#verifier = verifier;
    this.#walker = new TreeWalker(medium, verifier, findings);
    this.#references = new ReferenceCount(findings, name);
    this.#counts = new TreeCount(records, findings, hasSharedIndirect(fsinfo));
    this.#log = new LogCheck(medium, records, verifier, findings);
    this.#externals = new ExternalCheck(medium, records, findings);
  }

  async run(): Promise<void> {
    const records = this.#records;
    await this.#walkFile('vdisk', (fbn, bytes) => records.addVdiskBlock(fbn, bytes));
    await this.#walkFile('tree', (fbn, bytes) => records.addTreeBlock(fbn, bytes));
    records.check();
    await this.#log.read();
    await this.#walkFile('reference', (fbn, bytes) => this.#references.addBlock(fbn, bytes));
    await this.#walkTrees();
    await this.#externals.run();
    if (this.#findings.isComplete) {
      await new SplitCheck(this.#medium, records, this.#findings).run();
    }
    await this.#compare();
  }

  async #walkFile(file: Metafile, onBlock: (fbn: number, bytes: Uint8Array) => void) {
    const { words, height } = this.#medium.fsinfo.roots[file];
    const name = file === 'map' ? 'the active map' : `the ${file} file`;
    const plan = { name, root: words, height, goneBelowFbn: 0, endFbn: Infinity, onBlock };
    await this.#walker.walk(plan);
  }

  async #walkTrees(): Promise<void> {
    const { counts } = this.#findings;
    for (const tree of this.#records.trees.values()) {
      const countedBy = tree.countedById === 0 ? tree.id : tree.countedById;
      await this.#walker.walk({
        name: this.#records.nameOfTree(tree.id),
        root: tree.root,
        height: tree.height,
        goneBelowFbn: tree.state === 'live' ? 0 : tree.goneBelowFbn,
        endFbn: endOfTree(tree),
        onShared: (vbn, isBeneathShared) => {
          this.#noteShared();
          return this.#references.note(vbn, isBeneathShared ? 0 : countedBy, true);
        },
        onAgain: (blocks) => this.#counts.note(countedBy, blocks, true),
        onData: ({ fbn, vbn, crc, isNew, isBeneathShared, isBeneathEntry }) => {
          const hasEntry = this.#references.note(vbn, isBeneathShared ? 0 : countedBy, isNew);
          this.#counts.note(countedBy, 1, hasEntry || isBeneathShared);
          if ((hasEntry || isBeneathEntry) && isNew) counts.sharedBlocks++;
          this.#log.note(vbn, tree.id, fbn);
          if (tree.isExternal) this.#externals.note(tree, fbn, vbn, crc);
          this.#verifier.addData(vbn, crc, tree.id, fbn);
        },
      });
    }
    await this.#verifier.flush();
  }

  /** Programs that do not know shared indirect blocks must have been told. */
  #noteShared(): void {
    const { fsinfo, name } = this.#medium;
    if (this.#isAnnounced) return;
    this.#isAnnounced = true;
    if (hasSharedIndirect(fsinfo)) return;
    this.#findings.add('pointer', `${name} has a shared pointer, and its fsinfo does not say so`);
  }

  async #compare(): Promise<void> {
    const findings = this.#findings;
    const files = new Map<Metafile, Map<number, Uint32Array>>();
    for (const file of METAFILES) {
      if (file !== 'usage' && file !== 'map') continue;
      const blocks = new Map<number, Uint32Array>();
      files.set(file, blocks);
      await this.#walkFile(file, (fbn, bytes) => {
        blocks.set(fbn, new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4));
      });
    }
    const usage = files.get('usage') ?? new Map<number, Uint32Array>();
    const map = files.get('map') ?? new Map<number, Uint32Array>();
    if (findings.isComplete) {
      this.#references.compare();
      this.#counts.compare();
    }
    this.#log.compare(this.#walker);
    if (this.#medium instanceof InPlaceCheckMedium) {
      new MapCheck(this.#medium, this.#walker, findings, { map, usage }).compare();
    } else {
      await compareRecordUsage(this.#medium, this.#walker, findings, usage);
      if (findings.isComplete) await countOrphans(this.#medium, this.#walker, findings, usage);

      await checkPublications(this.#medium, this.#records, findings);
    }
    findings.counts.dataBlocks = this.#walker.data.size;
    findings.counts.metaBlocks = this.#walker.meta.size;
  }
}
