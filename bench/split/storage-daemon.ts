/**
 * qemu-storage-daemon: qcow2 overlays of one raw file, each an NBD export on one unix socket, and
 * `block-stream`, which is what qemu calls a copy split. Told what to do over QMP.
 *
 * Its files are opened with aio=threads and the system's cache, as Keiki's are.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { qemuImg, ServerProcess } from '../nbd/nbd-servers.js';

interface QmpMessage {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly data?: { readonly device?: string; readonly error?: string };
}

/** Options of its files, for the report. */
export const FILE_OPTIONS = 'aio=threads, cache.direct=off';

export class StorageDaemon {
  readonly socketPath: string;
  readonly #folder: string;
  readonly #golden: string;
  readonly #server: ServerProcess;
  readonly #qmp: Socket;
  readonly #waiting = new Map<number, (message: QmpMessage) => void>();
  readonly #jobs = new Map<string, (message: QmpMessage) => void>();
  #lastId = 0;

  /** Overlays of the raw file `golden` will lie in the folder. */
  static async start(folder: string, golden: string): Promise<StorageDaemon> {
    const qmpPath = `${folder}/qmp.sock`;
    const nbdPath = `${folder}/qsd.sock`;
    const words = [
      ...['--chardev', `socket,id=qmp,path=${qmpPath},server=on,wait=off`],
      ...['--monitor', 'chardev=qmp'],
      ...['--nbd-server', `addr.type=unix,addr.path=${nbdPath},max-connections=0`],
    ];
    const server = await ServerProcess.start('qemu-storage-daemon', words, nbdPath);
    const qmp = connect(qmpPath);
    await once(qmp, 'connect');
    const daemon = new StorageDaemon({ folder, golden, server, qmp, nbdPath });
    await daemon.#call('qmp_capabilities', {});
    await daemon.#call('blockdev-add', {
      'node-name': 'golden',
      driver: 'raw',
      'read-only': true,
      file: { driver: 'file', filename: golden, aio: 'threads' },
    });
    return daemon;
  }

  private constructor(parts: {
    readonly folder: string;
    readonly golden: string;
    readonly server: ServerProcess;
    readonly qmp: Socket;
    readonly nbdPath: string;
  }) {
    this.#folder = parts.folder;
    this.#golden = parts.golden;
    this.#server = parts.server;
    this.#qmp = parts.qmp;
    this.socketPath = parts.nbdPath;
    createInterface(this.#qmp).on('line', (line) => this.#receive(JSON.parse(line) as QmpMessage));
  }

  #receive(message: QmpMessage): void {
    if (message.id !== undefined) this.#waiting.get(message.id)?.(message);
    if (message.event === 'BLOCK_JOB_COMPLETED') {
      this.#jobs.get(message.data?.device ?? '')?.(message);
    }
  }

  async #call(execute: string, words: Readonly<Record<string, unknown>>): Promise<void> {
    const id = ++this.#lastId;
    const answer = new Promise<QmpMessage>((resolve) => this.#waiting.set(id, resolve));
    this.#qmp.write(`${JSON.stringify({ execute, arguments: words, id })}\n`);
    const { error } = await answer;
    this.#waiting.delete(id);
    if (error !== undefined) throw new Error(`${execute}: ${error.desc}`);
  }

  /** A new overlay, and its export of the same name. */
  async addOverlay(name: string): Promise<void> {
    const filename = this.#path(name);
    qemuImg('create', '-q', '-f', 'qcow2', '-b', this.#golden, '-F', 'raw', filename);
    await this.#call('blockdev-add', {
      'node-name': name,
      driver: 'qcow2',
      file: { driver: 'file', filename, aio: 'threads' },
      backing: 'golden',
    });
    const node = { 'node-name': name, name, writable: true };
    await this.#call('block-export-add', { type: 'nbd', id: name, ...node });
  }

  /** @returns where the file of the overlay lies, for who removes it */
  async removeOverlay(name: string): Promise<string> {
    await this.#call('block-export-del', { id: name, mode: 'hard' });
    await this.#call('blockdev-del', { 'node-name': name });
    return this.#path(name);
  }

  /** Resolves when the overlay needs its backing file no more. 0: as fast as it goes. */
  async stream(name: string, bytesPerSecond: number): Promise<void> {
    const job = `stream-${name}`;
    const ended = new Promise<QmpMessage>((resolve) => this.#jobs.set(job, resolve));
    await this.#call('block-stream', { 'job-id': job, device: name, speed: bytesPerSecond });
    const { data } = await ended;
    this.#jobs.delete(job);
    if (data?.error !== undefined) throw new Error(`${job}: ${data.error}`);
  }

  async stop(): Promise<void> {
    this.#qmp.destroy();
    await this.#server.stop();
  }

  #path(name: string): string {
    return `${this.#folder}/${name}.qcow2`;
  }
}
