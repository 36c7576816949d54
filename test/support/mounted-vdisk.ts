/**
 * A vdisk as a file system of the kernel: nbdfuse makes a file of it, losetup a block device of
 * that. Both that and mounting need root.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runProgram, runToSuccess } from '../../tools/quickstart/programs.js';

const ATTACH_MS = 120_000;
/** capabilities(7): who has it may mount. */
const CAP_SYS_ADMIN = 1n << 21n;

export type FileSystem = 'ext4' | 'xfs';

/** Root may not mount either, in many a container. */
export function mayMount(): boolean {
  if (!['/dev/fuse', '/dev/loop-control'].every((path) => existsSync(path))) return false;
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  return (BigInt(`0x${capabilities?.[1] ?? '0'}`) & CAP_SYS_ADMIN) !== 0n;
}

export class MountedVdisk {
  /** Where the file system is mounted. */
  readonly path: string;
  readonly device: string;
  readonly #file: string;
  readonly #fuse: ChildProcess;
  readonly #ended: Promise<unknown>;
  #isMounted = false;

  /** @param folder  is made; holds the file and the mount point */
  static async attach(uri: string, folder: string): Promise<MountedVdisk> {
    const file = join(folder, 'disk');
    mkdirSync(join(folder, 'mounted'), { recursive: true });
    writeFileSync(file, '');
    const fuse = spawn('nbdfuse', [file, uri], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    fuse.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    fuse.on('error', (error) => {
      said += error.message;
    });
    for (const end = performance.now() + ATTACH_MS; statSync(file).size === 0; await sleep(5)) {
      if (fuse.exitCode !== null || performance.now() > end) {
        throw new Error(`nbdfuse ${uri}: ${said}`);
      }
    }
    try {
      // Whole sectors: the loop device leaves out what is behind the last one.
      const device = (await runToSuccess('losetup', ['--find', '--show', file])).trim();
      return new MountedVdisk(folder, device, fuse);
    } catch (error) {
      fuse.kill();
      throw error;
    }
  }

  private constructor(folder: string, device: string, fuse: ChildProcess) {
    this.path = join(folder, 'mounted');
    this.device = device;
    this.#file = join(folder, 'disk');
    this.#fuse = fuse;
    this.#ended = fuse.exitCode === null ? once(fuse, 'close') : Promise.resolve();
  }

  async makeFileSystem(kind: FileSystem): Promise<void> {
    await runToSuccess(`mkfs.${kind}`, [kind === 'ext4' ? '-qF' : '-qf', this.device]);
  }

  async mount(): Promise<void> {
    await runToSuccess('mount', [this.device, this.path]);
    this.#isMounted = true;
  }

  async unmount(): Promise<void> {
    await runToSuccess('umount', [this.path]);
    this.#isMounted = false;
  }

  /** The file system's own check, of the device; it must be unmounted. */
  async checkFileSystem(kind: FileSystem): Promise<void> {
    if (kind === 'ext4') await runToSuccess('e2fsck', ['-fn', this.device]);
    else await runToSuccess('xfs_repair', ['-n', this.device]);
  }

  /** Lets go of everything, also after the server has gone. */
  async release(): Promise<void> {
    if (this.#isMounted) await runProgram('umount', [this.path]);
    await runProgram('losetup', ['--detach', this.device]);
    await runProgram('umount', [this.#file]);
    this.#fuse.kill();
    await this.#ended;
  }
}
