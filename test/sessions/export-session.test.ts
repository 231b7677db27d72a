import { parquetReadObjects } from 'hyparquet';
import { beforeAll, describe, expect, test } from 'vitest';
import { metrics, type Point } from '../../src-main/contract/metrics.ts';
import { pointConfigSchema } from '../../src-main/contract/sweep.ts';
import { skippedPoint } from '../../src-main/engine/measure.ts';
import { exportSession } from '../../src-main/sessions/export-session.ts';
import type { Session } from '../../src-main/sessions/recovery.ts';
import { environment, header, measured, planOf } from '../fakes/points.ts';

let points: Point[];
let session: Session;
const hostile = '</title><script>alert(1)</script>"&';

beforeAll(async () => {
  const [first, second, third] = planOf('baseline', 'balanced', 'four-bit');
  points = [await measured(first), skippedPoint(second, hostile), await measured(third)];
  session = {
    header,
    name: hostile,
    tags: [],
    how: 'done',
    records: [],
    points: new Map(points.map((point) => [point.id, point])),
    setAside: [],
    isLacking: false,
  };
});

describe('parquet', () => {
  const read = async (): Promise<Record<string, unknown>[]> => {
    const bytes = (await exportSession(session, 'parquet')) as Uint8Array;
    return parquetReadObjects({ file: bytes.slice().buffer });
  };

  test('another reader finds every number of the session, and null where nothing applies', async () => {
    const rows = await read();
    expect(rows).toHaveLength(points.length);
    for (const [i, row] of rows.entries()) {
      for (const { id, read: figureOf } of metrics) {
        const value = figureOf(points[i]);
        if (id in row) expect(row[id], id).toBe(value ?? null);
        else expect(value, id).toBeUndefined();
      }
      for (const field of Object.keys(pointConfigSchema.shape) as (keyof Point['config'])[])
        expect(row[field] ?? undefined, field).toBe(points[i].config[field]);
      expect(row.reason).toBe(points[i].reason ?? null);
      expect(JSON.parse(String(row.samplesSeconds))).toEqual(points[i].samplesSeconds ?? null);
    }
  });

  test('an empty session is a table without rows', async () => {
    session = { ...session, points: new Map() };
    expect(await read()).toEqual([]);
    session = { ...session, points: new Map(points.map((point) => [point.id, point])) };
  });
});

describe('the report', () => {
  test('holds every point and asks for nothing from anywhere', async () => {
    const html = (await exportSession(session, 'html')) as string;
    expect(html.match(/<tr data-id=/g)).toHaveLength(3);
    expect(html).not.toContain('amaged');
    const damaged = await exportSession({ ...session, setAside: [3, 7], isLacking: true }, 'html');
    expect(damaged).toContain('<p role="note">Damaged lines of the session, left out here: 3, 7.</p>');
    expect(html.match(/class="mark"/g)).toHaveLength(2);
    expect(html.match(/class="bar"/g)?.length).toBeGreaterThan(3);
    expect(html).toContain("default-src 'none'");
    expect(html.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:|url\(|@import|src=/);
    for (const { id, read } of metrics)
      if (id === 'relativeL2') expect(html).toContain(`data-value="${read(points[0])}"`);
    expect(html).toContain(environment.cpu);
  });

  test('names and reasons are text, whatever they contain', async () => {
    const html = (await exportSession(session, 'html')) as string;
    expect(html.match(/<script>/g)).toHaveLength(1);
    expect(html).toContain('&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&amp;');
  });
});
