/** Figures as people read them: shares, rates, times. Pure. */
import { parseSize } from '../base/size-text.js';
import { formatBytes } from '../base/units.js';

/** 42.3 %; 100 % only if nothing is missing. */
export function formatShare(done: number, total: number): string {
  if (total <= 0 || done >= total) return '100 %';
  return `${Math.min(99.9, Math.floor((done / total) * 1000) / 10)} %`;
}

export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(Math.round(bytesPerSecond))}/s`;
}

/** 0:07, 12:34, 3:04:05, and 2 d 03:04 from a day on. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (value: number): string => String(value).padStart(2, '0');
  const [s, m, h] = [whole % 60, Math.floor(whole / 60) % 60, Math.floor(whole / 3600)];
  if (h >= 24) return `${Math.floor(h / 24)} d ${two(h % 24)}:${two(m)}`;
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** How long something took: 95 ms, 3.2 s, and from ten seconds on as formatDuration. */
export function formatElapsed(seconds: number): string {
  if (seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : formatDuration(seconds);
}

/** 20 GiB; with the bytes behind it where the short form is not the whole truth. */
export function formatSize(bytes: number): string {
  const short = formatBytes(bytes);
  return parseSize(short.replace(' ', '')) === bytes ? short : formatExactly(bytes);
}

/** 20 GiB (21474836480 bytes). */
export function formatExactly(bytes: number): string {
  return bytes < 1024 ? `${bytes} bytes` : `${formatBytes(bytes)} (${bytes} bytes)`;
}

export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
