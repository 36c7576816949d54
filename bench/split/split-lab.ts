/**
 * One disk's content, twice: a snapshot in a Keiki store, and a raw file under qcow2 overlays of
 * qemu-storage-daemon, on the same file system. Clones of one and overlays of the other come and
 * go.
 */
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { GIB, MIB } from '../../src/base/units.js';
import { noise } from '../harness/file-store.js';
import { runCommand, writeFile } from '../harness/scratch.js';
import { elapsedMs } from '../harness/timing.js';
import { buildServer, KeikiServer, type ServerProcess } from '../nbd/nbd-servers.js';
import { KeikiApi, type SplitTimes } from './keiki-api.js';
import { LatencyClient } from './latency-log.js';
import { StorageDaemon } from './storage-daemon.js';

export const DISK_GIB = Number(process.env.KEIKI_BENCH_GIB ?? 4);
const DISK_BYTES = DISK_GIB * GIB;
const SEED = 4711;

/** How a disk is made to stand alone. */
export type Way =
  | { readonly kind: 'keiki'; readonly pace: 'now' | 'balanced' }
  | { readonly kind: 'qemu'; readonly bytesPerSecond: number };

export class SplitLab {
  readonly folder: string;
  readonly #build = buildServer();
  readonly #keiki: KeikiServer;
  readonly #api: KeikiApi;
  #server: ServerProcess | undefined;
  #daemon: StorageDaemon | undefined;
  #lastDisk = 0;

  constructor(folder: string) {
    this.folder = folder;
    this.#keiki = new KeikiServer(folder, this.#build);
    this.#api = new KeikiApi(this.#keiki.apiPath);
  }

  async start(): Promise<void> {
    const raw = `${this.folder}/golden.raw`;
    writeFile(raw, DISK_BYTES, noise(16 * MIB, SEED));
    this.#server = await this.#keiki.start(2.5 * DISK_BYTES + GIB, ['--store-preallocate']);
    this.#keiki.command('import', raw, 'golden');
    this.#keiki.command('snapshot', 'golden', 'v1');
    this.#daemon = await StorageDaemon.start(this.folder, raw);
    runCommand('sync', ['-f', this.folder]);
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop();
    await this.#server?.stop();
    this.#build.remove();
  }

  /** A new clone or overlay for the way. */
  async newDisk(way: Way): Promise<string> {
    const name = `disk${this.#lastDisk++}`;
    if (way.kind === 'keiki') await this.#api.clone('golden@v1', [name]);
    else await this.#daemon?.addOverlay(name);
    return name;
  }

  /** Its space is free again, and nothing is left to do for it. */
  async removeDisk(way: Way, name: string): Promise<void> {
    if (way.kind === 'keiki') await this.#api.deleteVdisks([name]);
    else rmSync((await this.#daemon?.removeOverlay(name)) ?? '');
    runCommand('sync', ['-f', this.folder]);
    await sleep(500);
  }

  /** How long it takes until what a disk of qemu has is on the device, as Keiki's already is. */
  async syncS(way: Way, name: string): Promise<number> {
    if (way.kind === 'keiki') return 0;
    const sync = (): unknown => runCommand('sync', ['-d', `${this.folder}/${name}.qcow2`]);
    return (await elapsedMs(() => Promise.resolve(sync()))) / 1000;
  }

  /** Makes it stand alone. */
  async split(way: Way, name: string): Promise<SplitTimes> {
    if (way.kind === 'keiki') return this.#api.split(name, { mode: 'copy', pace: way.pace });
    const startMs = Date.now();
    await this.#daemon?.stream(name, way.bytesPerSecond);
    return { startMs, endMs: Date.now() };
  }

  client(way: Way, name: string): LatencyClient {
    const socket = way.kind === 'keiki' ? this.#keiki.socketPath : this.#daemon?.socketPath;
    const uri = `nbd+unix:///${name}?socket=${socket}`;
    return new LatencyClient(uri, `${this.folder}/${name}`, SEED + this.#lastDisk);
  }
}
