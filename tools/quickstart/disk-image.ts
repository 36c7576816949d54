/**
 * Makes the golden disk: an ext4 file system full of this machine's own files, without root.
 *
 * 1. An image that has its description beside it is whole: the description is written last, under
 *    another name first.
 * 2. Two files of it, the diary, are the client's to overwrite: the places of their blocks, which
 *    debugfs tells, are in the description.
 */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  createReadStream,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import { runToSuccess } from './programs.js';

/** A stretch of the diary, as it lies on the disk. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

export interface DiskImage {
  readonly sizeBytes: number;
  readonly sha256: string;
  readonly fileCount: number;
  readonly fileBytes: number;
  readonly diary: readonly Stretch[];
}

/** In the order of their names: the first file of the disk, and the last. */
const DIARIES = ['1-diary.txt', 'zz-diary.txt'] as const;
const FILE_BYTES_MAX = 8 * MIB;
/** Of each source, so that it is not small files alone, and takes seconds. */
const FILES_MAX = 800;

export const imagePathIn = (folder: string): string => join(folder, 'golden.img');
const descriptionPathIn = (folder: string): string => join(folder, 'golden.json');

/** The image of an earlier run, if it was finished. */
export function findDiskImage(folder: string): DiskImage | undefined {
  const path = descriptionPathIn(folder);
  if (!existsSync(path) || !existsSync(imagePathIn(folder))) return undefined;
  return JSON.parse(readFileSync(path, 'utf8')) as DiskImage;
}

export async function makeDiskImage(
  folder: string,
  sizeBytes: number,
  progress: (text: string) => void,
): Promise<DiskImage> {
  const files = join(folder, `files-${process.pid}`);
  const image = join(folder, `golden-${process.pid}.part`);
  removeLeftovers(folder);
  mkdirSync(files);
  for (const name of DIARIES) writeDiary(join(files, name), sizeBytes / 8 / DIARIES.length);
  const gathered = gatherFiles(files, 0.7 * sizeBytes - sizeBytes / 8);
  progress(`${gathered.count} files; mke2fs -d`);
  await runToSuccess('mke2fs', [
    ...['-q', '-t', 'ext4', '-b', String(BLOCK_BYTES), '-i', '8192', '-m', '0'],
    ...['-L', 'golden', '-d', files, image, `${sizeBytes / 1024}k`],
  ]);
  rmSync(files, { recursive: true });
  progress('sha256');
  const sha256 = await hashFile(image);
  const description: DiskImage = {
    sizeBytes,
    sha256,
    fileCount: gathered.count,
    fileBytes: gathered.bytes,
    diary: await findDiary(image),
  };
  renameSync(image, imagePathIn(folder));
  const part = `${descriptionPathIn(folder)}.part`;
  writeFileSync(part, JSON.stringify(description));
  renameSync(part, descriptionPathIn(folder));
  return description;
}

/** What runs that were killed have left behind. */
function removeLeftovers(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (!/^(files-\d+|golden-\d+\.part|golden\.(img|json|json\.part))$/.test(name)) continue;
    rmSync(join(folder, name), { recursive: true });
  }
}

function writeDiary(path: string, sizeBytes: number): void {
  const lines: string[] = [];
  for (let day = 1; day <= sizeBytes / 64; day++) {
    lines.push(`Day ${day} of the golden disk's diary:`.padEnd(40).padEnd(63, '.'));
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
}

interface Gathered {
  count: number;
  bytes: number;
}

/** Copies files of this machine until so many bytes of the image are taken. */
function gatherFiles(into: string, budgetBytes: number): Gathered {
  const gathered: Gathered = { count: 0, bytes: 0 };
  let left = budgetBytes;
  let countMax = 0;
  const visit = (folder: string): void => {
    const target = join(into, folder);
    if (existsSync(target)) return;
    mkdirSync(target, { recursive: true });
    left -= BLOCK_BYTES;
    for (const name of namesIn(folder)) {
      if (left <= 0 || gathered.count >= countMax) return;
      const path = join(folder, name);
      const about = lstatSync(path, { throwIfNoEntry: false });
      if (about?.isDirectory()) visit(path);
      else if (about?.isFile() && about.size <= Math.min(left, FILE_BYTES_MAX)) {
        if (!copyIfReadable(path, join(into, path))) continue;
        gathered.count++;
        gathered.bytes += about.size;
        left -= Math.ceil(about.size / BLOCK_BYTES) * BLOCK_BYTES;
      }
    }
  };
  const nodeFolder = dirname(dirname(process.execPath));
  const project = resolve(import.meta.dirname, '../..');
  const sources = [
    '/usr/include',
    '/usr/share/doc',
    `${nodeFolder}/lib/node_modules`,
    `${project}/node_modules`,
  ];
  for (const source of [...sources, '/usr/bin', '/usr/share', '/usr/lib']) {
    countMax = gathered.count + FILES_MAX;
    if (left > 0 && existsSync(source)) visit(source);
  }
  return gathered;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function copyIfReadable(from: string, to: string): boolean {
  try {
    copyFileSync(from, to);
    return true;
  } catch {
    return false;
  }
}

/** Where the diary's blocks are on the disk, as debugfs lists the extents of its files. */
async function findDiary(image: string): Promise<Stretch[]> {
  const stretches: Stretch[] = [];
  for (const name of DIARIES) {
    const text = await runToSuccess('debugfs', ['-R', `dump_extents -l /${name}`, image]);
    const row = /^\s*\d+\/\s*\d+\s+\d+\/\s*\d+\s+\d+\s+-\s+\d+\s+(\d+)\s+-\s+\d+\s+(\d+)/gm;
    for (const [, block, blocks] of text.matchAll(row)) {
      stretches.push({ offset: Number(block) * BLOCK_BYTES, length: Number(blocks) * BLOCK_BYTES });
    }
    if (stretches.length === 0) throw new Error(`debugfs does not tell where ${name} is:\n${text}`);
  }
  return stretches;
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) {
    hash.update(chunk as Buffer);
  }
  return hash.digest('hex');
}
