/** Session files as a program of ours would have left them. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { RunEnd } from '../../src-main/contract/api.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Environment, SessionRecord } from '../../src-main/contract/session.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { resolveMeasuring } from '../../src-main/engine/plan.ts';
import { encodeRecord } from '../../src-main/sessions/recording.ts';
import { environment } from './points.ts';

export interface SessionFile {
  readonly sweep: Sweep;
  readonly points: readonly Point[];
  /** None = its program crashed. */
  readonly how?: RunEnd;
  readonly environment?: Partial<Environment>;
  readonly tags?: readonly string[];
}

export async function writeSession(path: string, session: SessionFile): Promise<void> {
  const { sweep, points, how, tags } = session;
  const label = tags && { kind: 'labelled' as const, tags: [...tags] };
  const records: SessionRecord[] = [
    {
      kind: 'header',
      schemaVersion: 1,
      id: path,
      name: sweep.name,
      sweep,
      measuring: resolveMeasuring(sweep),
      environment: { ...environment, ...session.environment },
    },
    ...points.map((point): SessionRecord => ({ kind: 'point', point })),
    ...(how ? [{ kind: 'ended', how } as const] : []),
    ...(label ? [label] : []),
  ];
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, Buffer.concat(records.map(encodeRecord)));
}

/** The same points, each as many times slower as `factor` says of it. */
export const timed = (points: readonly Point[], factor: (point: Point) => number): Point[] =>
  points.map((point) => {
    const { samplesSeconds, throughput } = point;
    if (!samplesSeconds || !throughput) return point;
    const by = factor(point);
    return {
      ...point,
      samplesSeconds: samplesSeconds.map((seconds) => seconds * by),
      throughput: {
        ...throughput,
        medianSeconds: throughput.medianSeconds * by,
        tokensPerSecond: throughput.tokensPerSecond / by,
      },
    };
  });
