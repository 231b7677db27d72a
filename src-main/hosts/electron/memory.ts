/** What the app remembers from one start to the next: where its window stood, and which files were open last. */
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { writeWhole } from '../../sessions/storage.ts';

const whole = z.number().int();
const rememberedSchema = z.object({
  window: z
    .object({ x: whole, y: whole, width: whole.min(1), height: whole.min(1), isMaximised: z.boolean() })
    .optional(),
  recentFiles: z.array(z.string()).default([]),
});
export type Remembered = Readonly<z.infer<typeof rememberedSchema>>;

export interface Memory {
  readonly now: Remembered;
  /** A failure to write is no reason to disturb anyone: the next change tries again. */
  change(part: Partial<Remembered>): Promise<void>;
}

/** A file that is missing or damaged remembers nothing. */
export function openMemory(file: string): Memory {
  let now = read(file);
  let writing: Promise<void> = Promise.resolve();
  const write = async (): Promise<void> => {
    await mkdir(dirname(file), { recursive: true });
    await writeWhole(file, Buffer.from(JSON.stringify(now, null, 2)));
  };
  return {
    get now() {
      return now;
    },
    change: (part) => {
      now = { ...now, ...part };
      writing = writing.then(write).catch(() => undefined);
      return writing;
    },
  };
}

function read(file: string): Remembered {
  try {
    return rememberedSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return { recentFiles: [] };
  }
}

const mostRecentFiles = 10;

/** Newest first, each once. */
export const withRecent = (files: readonly string[], file: string): string[] =>
  [file, ...files.filter((other) => other !== file)].slice(0, mostRecentFiles);
