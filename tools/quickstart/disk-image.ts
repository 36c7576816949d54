/**
 * Makes the golden disk: a partition table (GPT), and in its partition an ext4 file system full of
 * this machine's own files, without root.
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
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { BLOCK_BYTES, MIB, SECTOR_BYTES } from '../../src/base/units.js';
import type { Folder } from './folder.js';
import { runToSuccess } from './programs.js';

/** A stretch of the diary, as it lies on the disk. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

export interface DiskImage {
  readonly sizeBytes: number;
  /** Where the partition with the file system lies. */
  readonly partition: Stretch;
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

export const imagePathIn = (folder: Folder): string => folder.file('golden.img');
const descriptionPathIn = (folder: Folder): string => folder.file('golden.json');

/** The image of an earlier run, if it was finished. */
export function findDiskImage(folder: Folder): DiskImage | undefined {
  const path = descriptionPathIn(folder);
  if (!existsSync(path) || !existsSync(imagePathIn(folder))) return undefined;
  return JSON.parse(readFileSync(path, 'utf8')) as DiskImage;
}

/** How e2fsprogs name a file system that begins within a file. */
export function fileSystemIn(image: string, partition: Stretch): string {
  return `${image}?offset=${partition.offset}`;
}

export async function makeDiskImage(
  folder: Folder,
  sizeBytes: number,
  progress: (text: string) => void,
): Promise<DiskImage> {
  const files = folder.file(`files-${process.pid}`);
  const image = folder.file(`golden-${process.pid}.part`);
  removeLeftovers(folder.path);
  mkdirSync(files);
  for (const name of DIARIES) writeDiary(join(files, name), sizeBytes / 8 / DIARIES.length);
  const gathered = gatherFiles(files, 0.7 * sizeBytes - sizeBytes / 8);
  progress('sfdisk');
  const partition = await makePartition(image, sizeBytes);
  progress(`${gathered.count} files; mke2fs -d`);
  await runToSuccess('mke2fs', [
    ...['-q', '-F', '-t', 'ext4', '-b', String(BLOCK_BYTES), '-i', '8192', '-m', '0'],
    ...['-L', 'golden', '-E', `offset=${partition.offset}`, '-d', files],
    ...[image, String(Math.floor(partition.length / BLOCK_BYTES))],
  ]);
  rmSync(files, { recursive: true });
  progress('sha256');
  const sha256 = await hashFile(image);
  const description: DiskImage = {
    sizeBytes,
    partition,
    sha256,
    fileCount: gathered.count,
    fileBytes: gathered.bytes,
    diary: await findDiary(image, partition),
  };
  renameSync(image, imagePathIn(folder));
  const part = `${descriptionPathIn(folder)}.part`;
  writeFileSync(part, JSON.stringify(description));
  renameSync(part, descriptionPathIn(folder));
  return description;
}

/** A GPT with one partition from 1 MiB on, as installers make them. */
async function makePartition(image: string, sizeBytes: number): Promise<Stretch> {
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  const input = 'label: gpt\nstart=1MiB, type=linux, name=golden\n';
  await runToSuccess('sfdisk', ['--quiet', image], { input });
  const text = await runToSuccess('sfdisk', ['--json', image]);
  const { partitiontable: table } = JSON.parse(text) as {
    partitiontable: { partitions: { start: number; size: number }[] };
  };
  const [partition] = table.partitions;
  if (partition === undefined) throw new Error(`sfdisk has made no partition:\n${text}`);
  const { start, size } = partition;
  return { offset: start * SECTOR_BYTES, length: size * SECTOR_BYTES };
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
async function findDiary(image: string, partition: Stretch): Promise<Stretch[]> {
  const stretches: Stretch[] = [];
  const fileSystem = fileSystemIn(image, partition);
  for (const name of DIARIES) {
    const text = await runToSuccess('debugfs', ['-R', `dump_extents -l /${name}`, fileSystem]);
    const row = /^\s*\d+\/\s*\d+\s+\d+\/\s*\d+\s+\d+\s+-\s+\d+\s+(\d+)\s+-\s+\d+\s+(\d+)/gm;
    for (const [, block, blocks] of text.matchAll(row)) {
      const offset = partition.offset + Number(block) * BLOCK_BYTES;
      stretches.push({ offset, length: Number(blocks) * BLOCK_BYTES });
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
