/**
 * The sessions of one folder: every `*.fmqa` in it, those thrown away in `trash/` beside them, and whatever was opened from
 * elsewhere. A session is named by an id that only this class turns into a path.
 */
import { mkdir, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { Comparison } from '../contract/comparison.ts';
import { expected, InputError } from '../contract/input-error.ts';
import {
  type Download,
  type Library,
  largestSessionBytes,
  type SessionPoints,
  type SessionStatus,
  type SessionSummary,
} from '../contract/library.ts';
import type { Point } from '../contract/metrics.ts';
import type { ExportFormat, Label } from '../contract/session.ts';
import { ownerOf } from '../sessions/hold.ts';
import { parseSession, readSession, type Session } from '../sessions/recovery.ts';
import { fileError, nodeFileSystem, writeWhole } from '../sessions/storage.ts';
import type { Profiler } from './compose.ts';
import { freePath, sessionIdOf } from './folders.ts';
import { plannedPoints, withoutSamples } from './run-hub.ts';

const ending = '.fmqa';

const mediaTypes: Readonly<Record<ExportFormat | 'fmqa', string>> = {
  csv: 'text/csv',
  json: 'application/json',
  md: 'text/markdown',
  html: 'text/html',
  parquet: 'application/vnd.apache.parquet',
  fmqa: 'application/octet-stream',
};

export interface SessionLibraryOptions {
  readonly profiler: Pick<Profiler, 'append' | 'compare' | 'exportSession'>;
  readonly folder: string;
  /** Something is not what it was. */
  readonly onChange: () => void;
}

export class SessionLibrary {
  readonly folder: string;
  private readonly options: SessionLibraryOptions;
  private readonly trash: string;
  /** Paths of sessions opened from outside the folder. */
  private readonly outside = new Set<string>();
  /** What was read of a file, for as long as the file stays as it was. */
  private readonly known = new Map<string, { readonly version: string; readonly summary: SessionSummary | Error }>();

  constructor(options: SessionLibraryOptions) {
    this.options = options;
    this.folder = resolve(options.folder);
    this.trash = join(this.folder, 'trash');
  }

  async list(): Promise<Library> {
    const files = [...(await sessionFiles(this.folder)), ...this.outside];
    const summaries = await this.summariesOf(files);
    const trash = await this.summariesOf(await sessionFiles(this.trash));
    const newestFirst = (a: SessionSummary, b: SessionSummary): number => (a.startedAt < b.startedAt ? 1 : -1);
    const readable = ({ summary }: Read): SessionSummary[] => (summary instanceof Error ? [] : [summary]);
    return {
      folder: this.folder,
      sessions: summaries.flatMap(readable).sort(newestFirst),
      trash: trash.flatMap(readable).sort(newestFirst),
      unreadable: summaries.flatMap(({ file, summary }) =>
        summary instanceof Error ? [{ file, reason: summary.message }] : [],
      ),
    };
  }

  /** @throws InputError where there is no such session, or it cannot be read. */
  async read(id: string): Promise<{ readonly file: string; readonly session: Session }> {
    const file = await this.pathOf(id);
    return { file, session: await readSession(file) };
  }

  /** For hosts that may be trusted with paths: makes a session anywhere known to the library. @returns its id */
  async admit(path: string): Promise<string> {
    const file = resolve(path);
    await readSession(file);
    if (!(await sessionFiles(this.folder)).includes(file)) {
      this.outside.add(file);
      this.options.onChange();
    }
    return sessionIdOf(file);
  }

  async label(id: string, label: Label): Promise<void> {
    await this.options.profiler.append(await this.pathOf(id), { kind: 'labelled', ...label });
    this.options.onChange();
  }

  /** Does nothing for a session that did not crash. */
  async acceptCrash(id: string): Promise<void> {
    const file = await this.pathOf(id);
    const [{ summary }] = await this.summariesOf([file]);
    if (summary instanceof Error || !summary.isUnattended) return;
    await this.options.profiler.append(file, { kind: 'labelled', isCrashKnown: true });
    this.options.onChange();
  }

  async throwAway(id: string): Promise<string> {
    const file = await this.pathOf(id);
    if (this.outside.has(file)) throw new InputError(`${file} is not in the library: delete it where it is`);
    const owner = await ownerOf(file);
    if (owner) throw new InputError(`${basename(file)} is being recorded by ${owner}: stop the sweep first`);
    return this.move(file, this.trash);
  }

  async restore(id: string): Promise<string> {
    return this.move(find(await sessionFiles(this.trash), id), this.folder);
  }

  async emptyTrash(): Promise<number> {
    const files = await sessionFiles(this.trash);
    for (const file of files) await unlink(file);
    this.options.onChange();
    return files.length;
  }

  async export(id: string, format: ExportFormat | 'fmqa'): Promise<Download> {
    const file = await this.pathOf(id);
    const content =
      format === 'fmqa' ? await readFile(file) : (await this.options.profiler.exportSession(file, format)).content;
    return {
      fileName: `${basename(file, ending)}.${format}`,
      mediaType: mediaTypes[format],
      base64: Buffer.from(content).toString('base64'),
    };
  }

  /** @throws InputError for a file that is too large or no session; nothing is kept then. */
  async import(fileName: string, base64: string): Promise<SessionSummary> {
    const bytes = Buffer.from(base64, 'base64');
    if (bytes.length > largestSessionBytes)
      throw expected(`at most ${largestSessionBytes / 1024 ** 2} MiB`, fileName, `${bytes.length} bytes`);
    parseSession(bytes, fileName);
    const file = (await this.sameAs(bytes)) ?? (await this.keep(fileName, bytes));
    const [{ summary }] = await this.summariesOf([file]);
    if (summary instanceof Error) throw summary;
    return summary;
  }

  async points(id: string): Promise<SessionPoints> {
    const { session } = await this.read(id);
    const { name, points, header } = session;
    return { id, name, environment: header.environment, points: [...points.values()].map(withoutSamples) };
  }

  async compare(before: string, after: string): Promise<Comparison> {
    const { damage: _, ...comparison } = await this.options.profiler.compare(
      await this.pathOf(before),
      await this.pathOf(after),
    );
    return comparison;
  }

  private async pathOf(id: string): Promise<string> {
    return find([...(await sessionFiles(this.folder)), ...this.outside], id);
  }

  private async move(file: string, folder: string): Promise<string> {
    const from = resolve(file, '..');
    const target = freePath(folder, basename(file));
    try {
      await mkdir(folder, { recursive: true });
      await rename(file, target);
      for (const changed of [folder, from]) await nodeFileSystem.syncFolder(changed);
    } catch (error) {
      throw fileError('move', file, error);
    }
    this.options.onChange();
    return sessionIdOf(target);
  }

  /** The session of the library that holds exactly this. */
  private async sameAs(bytes: Buffer): Promise<string | undefined> {
    for (const file of await sessionFiles(this.folder)) {
      const { size } = await stat(file);
      if (size === bytes.length && (await readFile(file)).equals(bytes)) return file;
    }
    return undefined;
  }

  private async keep(fileName: string, bytes: Buffer): Promise<string> {
    await mkdir(this.folder, { recursive: true });
    const plain = basename(fileName, ending)
      .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
      .replace(/^[.-]+/, '')
      .slice(0, 80);
    const file = freePath(this.folder, `${plain || 'session'}${ending}`);
    await writeWhole(file, bytes);
    this.options.onChange();
    return file;
  }

  private async summariesOf(files: readonly string[]): Promise<Read[]> {
    const read: Read[] = [];
    for (const file of files) {
      const found = await stat(file).catch(() => undefined);
      if (!found) continue;
      const owner = await ownerOf(file);
      const version = `${found.size} ${found.mtimeMs} ${owner ?? ''}`;
      const before = this.known.get(file);
      const summary = before?.version === version ? before.summary : await this.summarise(file, found.size, owner);
      this.known.set(file, { version, summary });
      read.push({ file, summary });
    }
    return read;
  }

  private async summarise(file: string, bytes: number, owner: string | undefined): Promise<SessionSummary | Error> {
    if (bytes > largestSessionBytes) return new InputError(`larger than ${largestSessionBytes / 1024 ** 2} MiB`);
    try {
      return summaryOf(await readSession(file), { file, bytes, owner, isOutside: this.outside.has(file) });
    } catch (error) {
      return error as Error;
    }
  }
}

interface Read {
  readonly file: string;
  readonly summary: SessionSummary | Error;
}

/** Plain files only: a link could lead anywhere. A folder that is not there yet holds none. */
async function sessionFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw fileError('read', folder, error);
  });
  return entries.filter((entry) => entry.isFile() && entry.name.endsWith(ending)).map(({ name }) => join(folder, name));
}

function find(files: readonly string[], id: string): string {
  const file = files.find((candidate) => sessionIdOf(candidate) === id);
  if (file === undefined) throw new InputError('there is no such session: it was moved, deleted or thrown away', 'id');
  return file;
}

interface Found {
  readonly file: string;
  readonly bytes: number;
  readonly owner: string | undefined;
  readonly isOutside: boolean;
}

function summaryOf(session: Session, { file, bytes, owner, isOutside }: Found): SessionSummary {
  const { header, name, tags, points, records, setAside } = session;
  const rows = [...points.values()];
  const count = (outcome: Point['outcome']): number => rows.filter((row) => row.outcome === outcome).length;
  const total = plannedPoints(header.sweep);
  const status = statusOf(session, owner, total);
  const isKnown = records.some((record) => record.kind === 'labelled' && record.isCrashKnown);
  return {
    id: sessionIdOf(file),
    name,
    tags,
    startedAt: header.environment.startedAt,
    status,
    measured: count('measured'),
    failed: count('failed'),
    skipped: count('skipped'),
    ...(total === undefined ? {} : { total }),
    levels: [...new Set(rows.map(({ config }) => config.level))],
    backends: [...new Set(rows.map(({ config }) => config.backend))],
    cpu: header.environment.cpu,
    bytes,
    file,
    damagedLines: setAside.length,
    isUnattended: status === 'crashed' && !isKnown,
    isOutside,
  };
}

function statusOf({ how, points }: Session, owner: string | undefined, total: number | undefined): SessionStatus {
  if (owner !== undefined) return 'measuring';
  if (how === undefined) return 'crashed';
  return how === 'done' || points.size === total ? 'complete' : 'stopped';
}
