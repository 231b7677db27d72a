import '@mantine/core/styles.css';
import './theme.css';
import { createRoot } from 'react-dom/client';
import { chooseClient } from './client/choose.ts';
import { Root } from './shell/root.tsx';
import { createApp } from './store/app.ts';

const app = createApp(chooseClient(), window.localStorage);
await app.start();
createRoot(document.getElementById('root') as HTMLElement).render(<Root app={app} />);
