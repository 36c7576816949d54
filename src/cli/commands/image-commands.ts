/** Images in and out: import and export. */
import { StoreError } from '../../base/store-error.js';
import { formatBytes, SECTOR_BYTES } from '../../base/units.js';
import type { AnswerOf } from '../../control/operations.js';
import { encodeSparse, type SparsePiece } from '../../control/sparse-stream.js';
import { openSink } from '../../env/file-sink.js';
import { type ByteStream, openSource } from '../../env/file-source.js';
import { exportQcow2 } from '../../image/export-qcow2.js';
import { exportRaw } from '../../image/export-raw.js';
import { refusedFormat } from '../../image/foreign-formats.js';
import type { ImageFormat, ImageReader } from '../../image/image-reader.js';
import { openImageFile } from '../../image/open-image.js';
import type { UploadBody } from '../api-client.js';
import type { CommandRow, Context, Input } from '../command-table.js';
import { CommandError } from '../failure.js';
import { formatElapsed, formatExactly, formatSize } from '../figures.js';
import { imagePieces } from '../image-pieces.js';
import type { Progress } from '../progress.js';
import { RemoteTarget } from '../remote-target.js';
import { RAW_MEDIA, SPARSE_MEDIA } from '../routes.js';
import { ANY_NAME_ROW, NEW_NAME_ROW, SIZE_FLAG } from './rows.js';

const FORMATS = ['raw', 'qcow2'] as const;
const importCommand: CommandRow = {
  name: 'import',
  summary: 'A new vdisk with the content of a raw or qcow2 image',
  usage: 'FILE NAME [--format raw|qcow2] [--size SIZE]',
  details:
    'The vdisk appears when all of it is there and durable; an import that is interrupted leaves ' +
    'nothing. Zeros take no space. From a pipe raw disks are read; give --size, so that one that ' +
    'ends early is refused.',
  arguments: [
    { name: 'FILE', summary: 'file or block device; - is the standard input', completes: 'file' },
    NEW_NAME_ROW,
  ],
  flags: [
    {
      name: 'format',
      takes: 'FORMAT',
      choices: FORMATS,
      summary: 'what the file is; without it its first bytes decide',
    },
    {
      ...SIZE_FLAG,
      summary: 'size of the vdisk, if it is to be larger than the image; what a pipe has to bring',
    },
  ],
  examples: ['keiki import debian.qcow2 golden', 'zcat disk.img.gz | keiki import - golden'],
  run: async (context, input) => {
    const [file, given] = input.arguments;
    const name = given as string;
    await checkIsFree(context, name);
    const progress = context.progress(`import ${name}`);
    const source = await openSource(file === '-' ? 0 : (file as string));
    try {
      const format = input.flags.format as ImageFormat | undefined;
      const options = format === undefined ? {} : { format };
      if (source.kind === 'stream') return await importPipe(context, input, source, progress);
      const reader = await openImageFile(source.file, options);
      try {
        return await importImage(context, input, reader, progress);
      } finally {
        await reader.close();
      }
    } finally {
      progress.end();
      if (source.kind === 'stream') source.close();
    }
  },
};

/** Before the image is read. */
async function checkIsFree({ api }: Context, name: string): Promise<void> {
  const { vdisks } = await api.call('listVdisks', {});
  if (!vdisks.some((vdisk) => vdisk.name === name)) return;
  throw new CommandError('exists', `${name} exists already: choose another name, or delete it`);
}

async function importImage(
  context: Context,
  input: Input,
  reader: ImageReader,
  progress: Progress,
): Promise<undefined> {
  const totalBytes = reader.sizeBytes;
  const sizeBytes = (input.flags.size as number | undefined) ?? totalBytes;
  if (sizeBytes < totalBytes) {
    const sizes = `${sizeBytes} bytes, and ${reader.name} has ${totalBytes}`;
    throw new CommandError('usage', `--size is ${sizes}: it cannot be less`);
  }
  for (const note of reader.notes) context.output.tell(`keiki: note: ${reader.name}: ${note}`);
  const counted = counting(imagePieces(reader, context.signal), (doneBytes) =>
    progress.update({ doneBytes, totalBytes }),
  );
  const chunks = encodeSparse(counted, () => totalBytes);
  return upload(context, input, sizeBytes, { type: SPARSE_MEDIA, chunks }, progress);
}

async function importPipe(
  context: Context,
  input: Input,
  stream: ByteStream,
  progress: Progress,
): Promise<undefined> {
  const { size, format } = input.flags;
  if (format === 'qcow2') {
    const message = `${stream.name}: qcow2 is read from a file, not from a pipe`;
    throw new CommandError('unsupported', `${message}: save it to a file first`);
  }
  const sizeBytes = size as number | undefined;
  const chunks = rawDisk(stream, { sizeBytes, checksMark: format === undefined }, (doneBytes) => {
    progress.update({ doneBytes, totalBytes: sizeBytes });
  });
  return upload(context, input, sizeBytes, { type: RAW_MEDIA, chunks }, progress);
}

/** @param sizeBytes  undefined: as the stream is long */
async function upload(
  context: Context,
  input: Input,
  sizeBytes: number | undefined,
  body: UploadBody,
  progress: Progress,
): Promise<undefined> {
  const name = input.arguments[1] as string;
  const query =
    sizeBytes === undefined ? { create: 'true' as const } : { createSizeBytes: sizeBytes };
  const ask = { params: { name }, query };
  return answerWritten(context, await context.api.upload(ask, body), progress);
}

async function answerWritten(
  context: Context,
  written: AnswerOf<'writeData'>,
  progress: Progress,
): Promise<undefined> {
  progress.end();
  if (context.isJson) await context.output.printJson(written);
  const { name, sizeBytes, dataBytes } = written;
  const data = `${formatBytes(dataBytes)} of data`;
  const time = formatElapsed(progress.seconds);
  await context.say(`${name}: ${formatSize(sizeBytes)}, ${data}, in ${time}`);
  return undefined;
}

async function* counting(
  pieces: AsyncIterable<SparsePiece>,
  tell: (doneBytes: number) => void,
): AsyncGenerator<SparsePiece> {
  for await (const piece of pieces) {
    tell(piece.offset);
    yield piece;
  }
}

/** Longest mark that tells a format. */
const MARK_BYTES = 68;

interface PipeLimits {
  /** Undefined: whatever comes is the disk. */
  readonly sizeBytes: number | undefined;
  readonly checksMark: boolean;
}

/**
 * The bytes of the stream, which have to be the disk's, all of them, and a disk.
 * @throws {StoreError} invalid, unsupported
 */
async function* rawDisk(
  stream: ByteStream,
  { sizeBytes, checksMark }: PipeLimits,
  tell: (doneBytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let first = checksMark ? new Uint8Array(0) : undefined;
  let doneBytes = 0;
  for await (let chunk of stream.chunks) {
    if (first !== undefined) {
      first = Buffer.concat([first, chunk]);
      if (first.length < MARK_BYTES) continue;
      checkMark(stream.name, first);
      chunk = first;
      first = undefined;
    }
    doneBytes += chunk.length;
    if (sizeBytes !== undefined && doneBytes > sizeBytes) {
      const message = `${stream.name} has more than ${formatExactly(sizeBytes)}`;
      throw new StoreError('invalid', `${message}: give its right --size`);
    }
    tell(doneBytes);
    yield chunk;
  }
  doneBytes += first?.length ?? 0;
  // A tail shorter than a sector is filled up.
  const isCut = sizeBytes !== undefined && doneBytes <= sizeBytes - SECTOR_BYTES;
  if (doneBytes === 0 || isCut) {
    const whole = sizeBytes === undefined ? '' : ` of ${sizeBytes}`;
    const message = `${stream.name} ended after ${doneBytes}${whole} bytes`;
    throw new StoreError('invalid', `${message}: the disk is not whole`);
  }
  tell(doneBytes);
  if (first !== undefined) yield first;
}

function checkMark(name: string, first: Uint8Array): void {
  const isQcow2 = Buffer.from(first.subarray(0, 4)).toString('latin1') === 'QFI\xfb';
  const format = isQcow2 ? 'qcow2' : refusedFormat(first);
  if (format === undefined) return;
  const what = `${name}: this looks like ${format}, and from a pipe only raw disks are read`;
  const next = isQcow2 ? 'save it to a file and import that' : 'unpack or convert it first';
  throw new StoreError('unsupported', `${what}: ${next}; or say --format raw`);
}

const exportCommand: CommandRow = {
  name: 'export',
  summary: 'The content of a vdisk or snapshot as a raw or qcow2 image',
  usage: 'NAME FILE [--format raw|qcow2] [--force]',
  details:
    'Holes stay holes in the file. A vdisk that is written meanwhile gives a mixture: export a ' +
    'snapshot of it. What was begun and failed is removed.',
  arguments: [
    ANY_NAME_ROW,
    { name: 'FILE', summary: 'file or block device; - is the standard output', completes: 'file' },
  ],
  flags: [
    {
      name: 'format',
      takes: 'FORMAT',
      choices: FORMATS,
      summary: 'without it: qcow2 if the name of the file ends so, else raw',
    },
    { name: 'force', short: 'f', summary: 'take the place of a file that is there' },
  ],
  examples: ['keiki export golden@v1 golden.qcow2', 'keiki export web1@now - | gzip > web1.img.gz'],
  run: async (context, { arguments: [given, to], flags }) => {
    const { api, signal, output } = context;
    const [name, file] = [given as string, to as string];
    const isPipe = file === '-';
    if (isPipe && output.isTerminal) {
      throw new CommandError('usage', 'an image is not for a terminal: name a file, or a pipe');
    }
    if (isPipe && context.isJson) {
      throw new CommandError('usage', '--json and the image both want the standard output');
    }
    const named = file.endsWith('.qcow2') ? 'qcow2' : 'raw';
    const format = (flags.format as ImageFormat | undefined) ?? named;
    const vdisk = await api.call('getVdisk', { params: { name } });
    if (vdisk.kind === 'vdisk' && vdisk.clientCount > 0) {
      const advice = 'what they write meanwhile may be in the image or not';
      output.tell(`keiki: note: ${name} has clients: ${advice}; export a snapshot`);
    }
    const progress = context.progress(`export ${name}`);
    const target = new RemoteTarget(api, vdisk);
    const sink = await openSink(isPipe ? 1 : file, { overwrite: flags.force === true });
    try {
      const options = { signal, onProgress: progress.update.bind(progress) };
      const copy = format === 'qcow2' ? exportQcow2 : exportRaw;
      const { sizeBytes, writtenBytes } = await copy(target, sink, options);
      await target.finish();
      await sink.close();
      progress.end();
      if (context.isJson) await output.printJson({ name, file, format, sizeBytes, writtenBytes });
      const bytes = `${formatSize(sizeBytes)}, ${formatBytes(writtenBytes)} written`;
      const time = formatElapsed(progress.seconds);
      if (!isPipe) await context.say(`${name} -> ${file}: ${format}, ${bytes}, in ${time}`);
      return undefined;
    } catch (error) {
      target.close();
      await (sink.kind === 'file' ? sink.discard() : sink.close());
      throw error;
    } finally {
      progress.end();
    }
  },
};

export const IMAGE_COMMANDS: readonly CommandRow[] = [importCommand, exportCommand];
