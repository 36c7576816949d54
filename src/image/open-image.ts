/**
 * Opens an image and the images behind it.
 *
 * 1. What a file is, its user says, or the image that names it as its backing file; otherwise the
 *    first bytes of the first file decide. A backing file's bytes never decide: a client who writes
 *    a qcow2 header to a raw disk must not get the file that it names.
 * 2. A chain has no loop, at most BACKING_DEPTH_MAX images, and L1 tables that fit in memory.
 * 3. Whatever fails, no file stays open.
 */
import { dirname, resolve } from 'node:path';
import { StoreError } from '../base/store-error.js';
import { MIB } from '../base/units.js';
import { openFileForReading } from '../env/file-source.js';
import type { RandomAccessFile } from '../env/random-access-file.js';
import { refusedFormat } from './foreign-formats.js';
import { unsupportedImage } from './image-error.js';
import type { ImageFormat, ImageReader } from './image-reader.js';
import { QCOW2_MAGIC, type Qcow2Header, readQcow2Header } from './qcow2-header.js';
import { newQcow2Image } from './qcow2-image.js';
import { RawImage } from './raw-image.js';
import { SharedCache } from './shared-cache.js';

/** Images of one chain, the first one included. */
export const BACKING_DEPTH_MAX = 64;
const CACHE_BYTES = 16 * MIB;
/** L1 entries of all images of one chain: twice what one may have, 64 MiB of tables. */
const CHAIN_L1_COUNT_MAX = 8 * 1024 * 1024;
/** Enough for each format's mark. */
const MARK_BYTES = 68;
/** QEMU's names of what is a disk's bytes and nothing else. */
const RAW_FORMATS: readonly string[] = ['raw', 'file', 'host_device'];

export interface OpenImageOptions {
  /** Without it the first bytes of the file decide. */
  readonly format?: ImageFormat;
  /**
   * refuse: an image that names a backing file is not opened. For images from strangers: what it
   * names is read with our rights. Default: follow.
   */
  readonly backing?: 'follow' | 'refuse';
  /** For tables and inflated clusters of the whole chain. Default 16 MiB. */
  readonly cacheBytes?: number;
  /** How a path is opened. */
  readonly open?: (path: string) => Promise<RandomAccessFile>;
}

/** What the images of one chain share. */
interface Chain {
  readonly cache: SharedCache;
  readonly backing: 'follow' | 'refuse';
  readonly open: (path: string) => Promise<RandomAccessFile>;
  /** The names of the images so far, by identity of the file. */
  readonly names: Map<string, string>;
  l1Count: number;
}

/** @throws {StoreError} not-found, invalid, corrupt, unsupported, device */
export async function openImage(
  path: string,
  options: OpenImageOptions = {},
): Promise<ImageReader> {
  const open = options.open ?? openFileForReading;
  return openImageFile(await open(path), options);
}

/** The same for a file that is open; it is closed with the image, or if that cannot be opened. */
export async function openImageFile(
  file: RandomAccessFile,
  options: OpenImageOptions = {},
): Promise<ImageReader> {
  const chain: Chain = {
    cache: new SharedCache(options.cacheBytes ?? CACHE_BYTES),
    backing: options.backing ?? 'follow',
    open: options.open ?? openFileForReading,
    names: new Map([[file.identity, file.name]]),
    l1Count: 0,
  };
  try {
    const format = options.format ?? (await probe(file));
    return await openAs(format, file, chain);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openAs(
  format: ImageFormat,
  file: RandomAccessFile,
  chain: Chain,
): Promise<ImageReader> {
  if (format === 'raw') return new RawImage(file);
  const header = await readQcow2Header(file);
  chain.l1Count += header.l1Count;
  if (chain.l1Count > CHAIN_L1_COUNT_MAX) {
    const what = `with it the tables of the chain have ${chain.l1Count} entries, more than`;
    const next = 'convert it to one image with larger clusters';
    throw unsupportedImage(file.name, 36, `${what} ${CHAIN_L1_COUNT_MAX}: ${next}`);
  }
  const backing = await openBacking(file, header, chain);
  try {
    return await newQcow2Image(file, header, backing, chain.cache);
  } catch (error) {
    await backing?.close();
    throw error;
  }
}

async function openBacking(
  file: RandomAccessFile,
  header: Qcow2Header,
  chain: Chain,
): Promise<ImageReader | undefined> {
  if (header.backing === undefined) return undefined;
  const { name, format } = header.backing;
  if (chain.backing === 'refuse') {
    const what = `the image has the backing file '${name}', and none is to be followed`;
    throw unsupportedImage(file.name, 8, `${what}: join them with qemu-img convert first`);
  }
  const path = backingPath(file.name, name);
  const next = await chain.open(path);
  try {
    checkChain(file, next, chain);
    chain.names.set(next.identity, next.name);
    return await openAs(await backingFormat(file, next, format), next, chain);
  } catch (error) {
    await next.close();
    throw error;
  }
}

/** Relative to the folder of the image that names it. */
function backingPath(image: string, name: string): string {
  const plain = name.startsWith('file:') ? name.slice('file:'.length) : name;
  const isFile = !/^[A-Za-z][A-Za-z0-9+.-]*:/.test(plain) && !plain.startsWith('//');
  if (isFile) return resolve(dirname(image), plain);
  const what = `the backing file '${name}' is not named by a path, and only files are read`;
  throw unsupportedImage(image, 8, `${what}: join them with qemu-img convert first`);
}

function checkChain(file: RandomAccessFile, next: RandomAccessFile, chain: Chain): void {
  if (chain.names.has(next.identity)) {
    const message = `${file.name}: its backing file ${next.name} is in the chain already: a loop`;
    throw new StoreError('corrupt', `${message}; name the right one with qemu-img rebase -u`);
  }
  if (chain.names.size < BACKING_DEPTH_MAX) return;
  const what = `more than ${BACKING_DEPTH_MAX} images in one chain`;
  throw unsupportedImage(file.name, 8, `${what}: join some with qemu-img commit or convert`);
}

async function backingFormat(
  file: RandomAccessFile,
  next: RandomAccessFile,
  format: string | undefined,
): Promise<ImageFormat> {
  if (format === 'qcow2') return 'qcow2';
  if (format !== undefined && RAW_FORMATS.includes(format)) return 'raw';
  if (format !== undefined) {
    throw unsupportedImage(file.name, 8, `a backing file of format '${format}' is not read here`);
  }
  const mark = await readMark(next);
  if (!isQcow2(mark) && refusedFormat(mark) === undefined) return 'raw';
  const what = `the image does not say which format its backing file ${next.name} has, and that`;
  const rest = 'looks like a disk image: say it with `qemu-img rebase -u -b FILE -F FORMAT`';
  throw unsupportedImage(file.name, 8, `${what} ${rest}`);
}

async function probe(file: RandomAccessFile): Promise<ImageFormat> {
  const mark = await readMark(file);
  if (isQcow2(mark)) return 'qcow2';
  const format = refusedFormat(mark);
  if (format === undefined) return 'raw';
  const next = 'convert it to qcow2 or raw; or say format raw, if these bytes are the disk';
  throw unsupportedImage(
    file.name,
    0,
    `this looks like ${format}, which is not read here: ${next}`,
  );
}

async function readMark(file: RandomAccessFile): Promise<Uint8Array> {
  const mark = new Uint8Array(MARK_BYTES);
  await file.read(0, mark.subarray(0, Math.min(MARK_BYTES, file.sizeBytes)));
  return mark;
}

function isQcow2(mark: Uint8Array): boolean {
  return new DataView(mark.buffer).getUint32(0) === QCOW2_MAGIC;
}
