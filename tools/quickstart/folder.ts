/**
 * The folder of a run: its files, its sockets, and the lock on it.
 *
 * 1. The lock is held before anything in the folder is touched: of two runs in one folder, the
 *    second waits.
 * 2. Only files of these names are ever deleted. What else is in the folder is somebody's.
 * 3. A socket has a path of at most 107 bytes. Where the folder's own is too long, or has a comma,
 *    which parts the addresses in KEIKI_API, the sockets stand in a folder of their own in /tmp,
 *    which belongs to this user alone.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Longer than a whole run may take. */
const WAIT_MS = 180_000;
const POLL_MS = 200;
/** sun_path has 108 bytes, one of them a zero (unix(7)). */
const SOCKET_BYTES_MAX = 107;

const SOCKETS = ['api.sock', 'nbd.sock', 'web.sock'] as const;
const STORE = 'disks.keiki';
/** What a run makes, temporary files among it. */
const OWN_NAMES: readonly RegExp[] = [
  /^(files-\d+|golden-\d+\.part|golden\.img|golden\.json(\.part)?|web\.img)$/,
  /^(disks\.keiki(\..+)?|server\.log|flushed\.txt|(api|nbd|web)\.sock)$/,
];

export type SocketName = (typeof SOCKETS)[number];

export class Folder {
  /** As it is shown: relative, where that is shorter. */
  readonly path: string;
  /** Without links: what tells this folder from all others. */
  readonly realPath: string;
  readonly #socketFolder: string;
  readonly #lock: number;

  private constructor(path: string, lock: number) {
    this.path = path;
    this.realPath = realpathSync(path);
    this.#lock = lock;
    this.#socketFolder = socketFolderFor(path, this.realPath);
  }

  /** Makes the folder, and locks it. `onWait` is called when another run has it. */
  static async lock(path: string, onWait: () => void): Promise<Folder> {
    for (const end = performance.now() + WAIT_MS; ; ) {
      mkdirSync(path, { recursive: true });
      const lock = openSync(path, 'r');
      // The lock stays with this descriptor, and so with this process, when flock has ended.
      const stdio = ['ignore', 'ignore', 'ignore', lock] as const;
      const { status, error } = spawnSync('flock', ['-n', '3'], { stdio: [...stdio] });
      if (error !== undefined) throw new Error(`flock cannot be run: ${error.message}`);
      // The run that had it may have deleted the folder at its end.
      if (status === 0 && isSame(path, lock)) return new Folder(path, lock);
      closeSync(lock);
      if (performance.now() > end) throw new Error(`another run has ${path}/, and does not end`);
      if (status === 0) continue;
      onWait();
      await sleep(POLL_MS);
    }
  }

  file(name: string): string {
    const path = join(this.path, name);
    return path.startsWith('-') ? `./${path}` : path;
  }

  get store(): string {
    return this.file(STORE);
  }

  get log(): string {
    return this.file('server.log');
  }

  socket(name: SocketName): string {
    const path = join(this.#socketFolder, name);
    // An address with a slash is a path.
    return path.includes('/') ? path : `./${path}`;
  }

  /** Deletes the store, and what its server keeps beside it. */
  removeStore(): void {
    for (const path of [this.store, `${this.store}.attachments`]) rmSync(path, { force: true });
  }

  /** Deletes what runs have made, and the folder, if nothing else is in it. */
  remove(): void {
    for (const name of readdirSync(this.path)) {
      const isOwn = OWN_NAMES.some((pattern) => pattern.test(name));
      if (isOwn) rmSync(join(this.path, name), { recursive: true });
    }
    if (readdirSync(this.path).length === 0) rmdirSync(this.path);
  }

  /** The folder of the sockets, if it is one of their own, goes with its run. */
  close(): void {
    if (this.#socketFolder !== this.path) rmSync(this.#socketFolder, { recursive: true });
    closeSync(this.#lock);
  }
}

function isSame(path: string, descriptor: number): boolean {
  const [there, held] = [statSync(path, { throwIfNoEntry: false }), fstatSync(descriptor)];
  return there !== undefined && there.dev === held.dev && there.ino === held.ino;
}

function socketFolderFor(path: string, realPath: string): string {
  // What a client on the command line names is made absolute before the server sees it.
  const longest = Math.max(...SOCKETS.map((name) => Buffer.byteLength(join(realPath, name))));
  if (longest <= SOCKET_BYTES_MAX && !realPath.includes(',')) return path;
  const userId = process.getuid?.() ?? 0;
  const key = createHash('sha256').update(realPath).digest('hex').slice(0, 12);
  const folder = `/tmp/keiki-quickstart-${userId}-${key}`;
  if (!existsSync(folder)) mkdirSync(folder, { mode: 0o700 });
  const stat = lstatSync(folder);
  if (stat.isDirectory() && stat.uid === userId && (stat.mode & 0o022) === 0) return folder;
  throw new Error(`${folder} is not this user's alone: delete it, or give a shorter --dir`);
}

/** The path as it is shorter: as it is, or from here. */
export function shorter(path: string): string {
  const here = relative('', path) || '.';
  return here.length < path.length ? here : path;
}
