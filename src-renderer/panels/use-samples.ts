/** The raw samples of a point of the current session, asked for when first looked at. */
import { useEffect } from 'react';
import { useStore } from 'zustand';
import { samplesKey } from '../store/samples.ts';
import { useApp, useRun } from './use-app.ts';

export function useSamples(pointId: string | undefined) {
  const { samples } = useApp();
  const sessionId = useRun((run) => run.session?.id ?? '');
  useEffect(() => {
    if (pointId !== undefined) void samples.ask(sessionId, pointId);
  }, [samples, sessionId, pointId]);
  return useStore(samples, (all) => (pointId === undefined ? undefined : all[samplesKey(sessionId, pointId)]));
}
