import { createTheme, type MantineColorsTuple, MantineProvider, Menu, Select } from '@mantine/core';
import { AppContext } from '../panels/use-app.ts';
import type { App } from '../store/app.ts';
import { Window } from './window.tsx';

const theme = createTheme({
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif',
  fontSizes: { xs: '12px', sm: '13px', md: '14px', lg: '16px', xl: '18px' },
  headings: { sizes: { h2: { fontSize: '14px' }, h3: { fontSize: '12px' } }, fontWeight: '650' },
  // The library's greys, in the hue of the window's own dark panes.
  colors: {
    dark: [
      ...['#c9d0d9', '#b4bdc9', '#848e9c', '#667080', '#3d4654'],
      ...['#343c48', '#262d37', '#1c2129', '#181c23', '#101318'],
    ] as unknown as MantineColorsTuple,
  },
  // White on the library's usual shade falls short of 4.5 : 1.
  primaryShade: 8,
  defaultRadius: 'sm',
  respectReducedMotion: true,
  cursorType: 'pointer',
  components: {
    // It holds the focus for a moment and is no item, which a menu may not have.
    Menu: Menu.extend({ defaultProps: { withInitialFocusPlaceholder: false } }),
    // What scrolls must be reached by keyboard.
    Select: Select.extend({ defaultProps: { withScrollArea: false, attributes: { options: { tabIndex: 0 } } } }),
  },
});

/** Style sheets that the component library writes at run time carry the nonce of this page. */
const styleNonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce;

export const Root = ({ app }: { readonly app: App }) => (
  <MantineProvider
    theme={theme}
    defaultColorScheme="auto"
    {...(styleNonce === undefined ? {} : { getStyleNonce: () => styleNonce })}
  >
    <AppContext value={app}>
      <Window />
    </AppContext>
  </MantineProvider>
);
