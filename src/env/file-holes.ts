/**
 * Finds the holes of a sparse file, so that a large empty disk image is not read in full.
 *
 * 1. Node has no seek. A process that inherits the descriptor can ask the system (SEEK_DATA,
 *    SEEK_HOLE): Perl, as every Debian has it. It moves the position that it shares with us, which
 *    nobody uses: our reads say where.
 * 2. What it cannot tell is data: without Perl, on a file system that knows no holes, if it ends
 *    too early, or if the file is shorter now than it was. So a hole is never guessed.
 *
 * Source: lseek(2).
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Prints a line "start end" for each run of data; exits with 0 if it has come to the end. */
const SCRIPT = `
  my ($at, $end) = @ARGV;
  open(my $file, '<&=', 3) or exit 2;
  while ($at < $end) {
    my $data = sysseek($file, $at, 3);
    if (!defined $data) {
      exit 2 if $! != 6; # not ENXIO, which says that no data follows
      last;
    }
    $data += 0;
    last if $data >= $end;
    my $hole = sysseek($file, $data, 4);
    exit 2 if !defined $hole;
    print "$data $hole\\n";
    $at = $hole + 0;
  }
  exit((stat($file))[7] >= $end ? 0 : 2);
`;

/** Ranges of [offset, offset + length) that are not holes, in order. */
export async function* dataRanges(
  descriptor: number,
  offset: number,
  length: number,
): AsyncGenerator<ByteRange> {
  const end = offset + length;
  const stdio = ['ignore', 'pipe', 'ignore', descriptor] as const;
  const seeker = spawn('perl', ['-e', SCRIPT, `${offset}`, `${end}`], { stdio: [...stdio] });
  const exited = new Promise<number>((resolve) => {
    seeker.on('error', () => resolve(2));
    seeker.on('close', (code) => resolve(code ?? 2));
  });
  let at = offset;
  try {
    for await (const line of createInterface({ input: seeker.stdout as Readable })) {
      const [start, stop] = line.split(' ').map(Number);
      const isRun = start !== undefined && stop !== undefined && start >= at && start < stop;
      if (!isRun) {
        seeker.kill();
        break;
      }
      yield { offset: start, length: Math.min(stop, end) - start };
      at = stop;
    }
    if ((await exited) !== 0 && at < end) yield { offset: at, length: end - at };
  } finally {
    seeker.kill();
  }
}
